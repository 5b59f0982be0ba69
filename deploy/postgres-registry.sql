-- The image makes the gateway's database itself; this is the second one. Run once, when the volume is empty.
CREATE DATABASE registry;
