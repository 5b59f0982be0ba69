"""The faults, one after the other and sometimes two at a time, in an order that the seed decides."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from .callers import Callers
from .faults import FAULTS, OUTAGE, Fault, Scene, Strike
from .stage import Stage

_AT_ONCE = 2


class Storm:
    """Breaks a stage until it is told to stop. Use it as a context manager: at the end everything is whole again."""

    def __init__(self, stage: Stage, callers: Callers, seed: int, *, pause_s: float, outage: bool) -> None:
        """`pause_s`: between two blows, in the mean. `outage`: take all gateways away once, first of all."""
        self.strikes: list[Strike] = []
        self.failures: list[str] = []
        """What went wrong with the faults themselves."""
        self._scene = Scene(stage, callers)
        self._seed = seed
        self._pause_s = pause_s
        self._outage = outage
        self._thread = threading.Thread(target=self._run, name="storm", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._scene.closing.set()
        self._thread.join()
        self._scene.stage.calm()

    def _run(self) -> None:
        chance = random.Random(self._seed)
        if self._outage:
            self._wait_for_training()
            self._strike(OUTAGE, random.Random(chance.random()))
        free = threading.Semaphore(_AT_ONCE)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for fault in _endless(chance, self._scene.stage):
                own_chance, pause_s = random.Random(chance.random()), chance.uniform(0.3, 1.7) * self._pause_s
                free.acquire()
                if self._scene.closing.is_set():
                    return
                pool.submit(self._strike, fault, own_chance).add_done_callback(lambda _: free.release())
                self._scene.sleep(pause_s)

    def _wait_for_training(self) -> None:
        while not self._scene.closing.is_set() and not any(held.state == "RUNNING" for held in self._scene.held()):
            self._scene.sleep(0.2)

    def _strike(self, fault: Fault, chance: random.Random) -> None:
        if self._scene.closing.is_set():
            return
        strike, began = Strike(fault.name, time=time.time()), time.monotonic()
        try:
            fault.strike(self._scene, chance, strike)
        except Exception:  # noqa: BLE001 - a fault that fails must not end the storm, and is told of
            self.failures.append(f"{fault.name}: {traceback.format_exc(limit=-3)}")
        strike.seconds = time.monotonic() - began
        self.strikes.append(strike)


def _endless(chance: random.Random, stage: Stage) -> Iterator[Fault]:
    """Every possible fault by its weight, shuffled, again and again: none waits long for its turn."""
    bag = [fault for fault in FAULTS if fault.possible(stage) for _ in range(fault.weight)]
    while True:
        yield from chance.sample(bag, len(bag))
