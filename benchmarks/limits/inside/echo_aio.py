"""A bare grpc.aio server on uvloop that answers every unary call with the bytes it came with.

Usage: python echo_aio.py HOST:PORT
"""

import sys

import grpc
import uvloop


class Echo(grpc.GenericRpcHandler):
    """Takes every path."""

    def service(self, _details):
        """The same handler for all."""
        return grpc.unary_unary_rpc_method_handler(self._answer)

    @staticmethod
    async def _answer(message, _context):
        return message


async def main() -> None:
    """Serves until a signal ends the process."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers([Echo()])
    server.add_insecure_port(sys.argv[1])
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
