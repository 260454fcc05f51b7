"""A small Python client of ReelKV: stock grpcio and protobuf, message classes made by protoc from proto/ as it is now."""

import pathlib
import subprocess
import sys
import tempfile

import grpc

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def load_messages():
    """Compiles proto/reelkv/v1 and returns the message modules of qa and kvstore."""
    protos = sorted(str(path) for path in (SOURCE / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory(prefix="reelkv-proto-") as out:
        subprocess.run(["protoc", "-I", str(SOURCE / "proto"), f"--python_out={out}", *protos], check=True)
        sys.path.insert(0, out)
        from reelkv.v1 import kvstore_pb2, qa_pb2

        sys.path.remove(out)
    return qa_pb2, kvstore_pb2


class Answer:
    """What one Ask brought: text, the frames each layer chose ({layer: [seq]}), the end message."""

    def __init__(self):
        self.text = ""
        self.layers = {}
        self.end = None


class Qa:
    def __init__(self, address, messages):
        self.messages = messages
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 16 << 20)])
        self.ask_call = self.channel.unary_stream(
            "/reelkv.v1.Qa/Ask",
            request_serializer=messages.AskRequest.SerializeToString,
            response_deserializer=messages.AskReply.FromString,
        )

    def ask(self, request, timeout=120):
        answer = Answer()
        for reply in self.ask_call(request, timeout=timeout):
            kind = reply.WhichOneof("item")
            if kind == "evidence":
                for choice in reply.evidence.layers:
                    answer.layers[choice.layer] = [hit.frame.seq for hit in choice.hits if not hit.recent]
            elif kind == "answer":
                answer.text += reply.answer.text
            elif kind == "end":
                answer.end = reply.end
        if answer.end is None:
            raise RuntimeError(f"qa closed the answer to {request.question!r} without an end message")
        return answer
