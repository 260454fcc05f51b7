"""Asks a running qa as a stock gRPC client does. usage: stock_client.py ADDRESS CAMERA

For stock_client_test.c; the generated protobuf modules are on PYTHONPATH. Ends with 0 when everything held.
"""
import sys

import grpc

from grpc_health_v1_pb import health_pb2
from grpc_reflection_v1_pb import reflection_pb2
from reelkv.v1 import qa_pb2

WAIT_S = 60


def services(channel):
    reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                    reflection_pb2.ServerReflectionRequest.SerializeToString,
                                    reflection_pb2.ServerReflectionResponse.FromString)
    question = reflection_pb2.ServerReflectionRequest(list_services="*")
    answers = list(reflect(iter([question]), timeout=WAIT_S))
    return [service.name for service in answers[0].list_services_response.service]


def health(channel, service):
    check = channel.unary_unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest.SerializeToString,
                                health_pb2.HealthCheckResponse.FromString)
    return check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S).status


def refused(code, call):
    try:
        list(call)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        assert error.details()
        return
    raise AssertionError(f"no {code}")


def main():
    address, camera = sys.argv[1:]
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
        assert "reelkv.v1.Qa" in services(channel)
        assert health(channel, "reelkv.v1.Qa") == health_pb2.HealthCheckResponse.SERVING
        stub = channel.unary_stream("/reelkv.v1.Qa/Ask", qa_pb2.AskRequest.SerializeToString,
                                    qa_pb2.AskReply.FromString)

        def ask(text="What colour was the star?", name=camera, tokens=16):
            request = qa_pb2.AskRequest(namespace="default", streams=[name], question=text)
            request.max_tokens.value = tokens
            return stub(request, timeout=WAIT_S)

        replies = list(ask())
        kinds = [reply.WhichOneof("item") for reply in replies]
        assert kinds[0] == "evidence" and kinds[-1] == "end", kinds
        assert set(kinds[1:-1]) <= {"answer"}, kinds
        evidence, end = replies[0].evidence, replies[-1].end
        assert evidence.frames_in_view > 0 and evidence.frames
        assert all(frame.layers > 0 and frame.pts_ns > 0 for frame in evidence.frames)
        assert 0 < len(end.answer_ids) == end.answer_tokens <= 16
        assert end.total_ms > 0

        cancelled = ask(tokens=1024)
        assert next(cancelled).WhichOneof("item") == "evidence"
        cancelled.cancel()
        refused(grpc.StatusCode.CANCELLED, cancelled)
        assert list(ask())[-1].end.answer_ids == end.answer_ids  # a cancelled question leaves no trace

        refused(grpc.StatusCode.NOT_FOUND, ask(name="no-such-camera"))
        refused(grpc.StatusCode.INVALID_ARGUMENT, ask(text=""))


if __name__ == "__main__":
    main()
