"""A stock gRPC client (Debian's python3-grpcio) against lib/rpc: nothing here shares code with it.

usage: rpc_stock_client_test.py SERVER_PROGRAM [TEST...]   (generated protobuf modules are on PYTHONPATH)
Starts the server itself on a free port; each test is a function named test_*; prints one line a test.
"""
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from grpc_health_v1_pb import health_pb2
from grpc_reflection_v1_pb import reflection_pb2 as reflection_v1
from grpc_reflection_v1alpha_pb import reflection_pb2 as reflection_v1alpha
from reelkv.v1 import kvstore_pb2
from rpc import rpc_error_pb2

WAIT_S = 30
OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 128 << 20)]


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([sys.argv[1], "--listen=127.0.0.1:0", *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.address = json.loads(self.process.stdout.readline())["addresses"][0]

    def __enter__(self):
        self.channel = grpc.insecure_channel(self.address, options=OPTIONS)
        return self

    def __exit__(self, *_):
        self.channel.close()
        code = self.stop()
        assert code == 0, f"the server ended with {code}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdout.close()

    def unary(self, method, reply):
        return self.channel.unary_unary(f"/reelkv.v1.KvStore/{method}", lambda m: m.SerializeToString(),
                                        reply.FromString)

    def stream(self, method, reply):
        return self.channel.unary_stream(f"/reelkv.v1.KvStore/{method}", lambda m: m.SerializeToString(),
                                         reply.FromString)

    def info(self):
        return self.unary("GetServerInfo", kvstore_pb2.ServerInfo)(kvstore_pb2.GetServerInfoRequest(),
                                                                   timeout=WAIT_S)

    def append(self, requests, serialize=lambda m: m.SerializeToString(), **more):
        call = self.channel.stream_stream("/reelkv.v1.KvStore/Append", serialize,
                                          kvstore_pb2.AppendReply.FromString)
        return call(requests, timeout=WAIT_S, **more)


def expect(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        return error
    raise AssertionError(f"no {code}")


def until(fact, what):
    end = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def fixture_sum(data):
    a, b = 1, 0
    for byte in data:
        a += byte
        b += a
    return ((b << 24) ^ a) & 0xFFFFFFFFFFFFFFFF


def reflect(server, version, module, **question):
    call = server.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                        lambda m: m.SerializeToString(),
                                        module.ServerReflectionResponse.FromString)
    answers = list(call(iter([module.ServerReflectionRequest(host="h", **question)]), timeout=WAIT_S))
    assert len(answers) == 1 and answers[0].valid_host == "h"
    return answers[0]


def test_reflection_lists_and_describes_every_service():
    """What reflection sends is enough to build every service's types in an empty pool."""
    with Server() as server:
        for version, module in (("v1", reflection_v1), ("v1alpha", reflection_v1alpha)):
            listed = reflect(server, version, module, list_services="*").list_services_response.service
            names = sorted(service.name for service in listed)
            assert names == ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                             "grpc.reflection.v1alpha.ServerReflection", "reelkv.v1.Ingest",
                             "reelkv.v1.KvStore"], names
            for name in names:
                answer = reflect(server, version, module, file_containing_symbol=name)
                files = [descriptor_pb2.FileDescriptorProto.FromString(raw)
                         for raw in answer.file_descriptor_response.file_descriptor_proto]
                pool = descriptor_pool.DescriptorPool()
                for file in reversed(files):
                    pool.Add(file)
                service = pool.FindServiceByName(name)
                assert all(method.input_type.full_name for method in service.methods)
            method = reflect(server, version, module, file_containing_symbol="reelkv.v1.KvStore.Append")
            names = sorted(descriptor_pb2.FileDescriptorProto.FromString(raw).name
                           for raw in method.file_descriptor_response.file_descriptor_proto)
            assert names == ["reelkv/v1/catalog.proto", "reelkv/v1/common.proto", "reelkv/v1/kvstore.proto"], names
            by_name = reflect(server, version, module, file_by_filename="reelkv/v1/common.proto")
            assert len(by_name.file_descriptor_response.file_descriptor_proto) == 1


def test_reflection_says_what_it_does_not_have():
    with Server() as server:
        for question in ({"file_containing_symbol": "no.such.Thing"}, {"file_by_filename": "no.proto"},
                         {"all_extension_numbers_of_type": "no.Type"}):
            answer = reflect(server, "v1", reflection_v1, **question)
            assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
            assert answer.original_request.WhichOneof("message_request") == list(question)[0]
        answer = reflect(server, "v1", reflection_v1, all_extension_numbers_of_type="reelkv.v1.StreamId")
        assert answer.all_extension_numbers_response.base_type_name == "reelkv.v1.StreamId"


def test_reflection_waits_for_a_client_that_reads_late():
    """3000 questions are asked before the first answer is read: the answers (30 MB) do not pile up, none is lost."""
    with Server() as server:
        call = server.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                            lambda m: m.SerializeToString(),
                                            reflection_v1.ServerReflectionResponse.FromString)
        question = reflection_v1.ServerReflectionRequest(file_containing_symbol="reelkv.v1.KvStore")
        answers = call(iter([question] * 3000), timeout=WAIT_S)
        next(answers)
        time.sleep(0.5)
        assert sum(1 for _ in answers) == 2999


def test_health_checks_and_watches():
    with Server("--lame-ms=300") as server:
        check = server.channel.unary_unary("/grpc.health.v1.Health/Check",
                                           health_pb2.HealthCheckRequest.SerializeToString,
                                           health_pb2.HealthCheckResponse.FromString)
        watch = server.channel.unary_stream("/grpc.health.v1.Health/Watch",
                                            health_pb2.HealthCheckRequest.SerializeToString,
                                            health_pb2.HealthCheckResponse.FromString)
        for service in ("", "reelkv.v1.KvStore"):
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        expect(grpc.StatusCode.NOT_FOUND, lambda: check(health_pb2.HealthCheckRequest(service="x"), timeout=WAIT_S))
        watched = watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        expect(grpc.StatusCode.UNAVAILABLE, lambda: next(watched))


def test_unary_calls_carry_the_request_id():
    with Server() as server:
        call = server.unary("GetServerInfo", kvstore_pb2.ServerInfo)
        reply, details = call.with_call(kvstore_pb2.GetServerInfoRequest(), timeout=WAIT_S,
                                        metadata=[("x-request-id", "python-1")])
        assert reply.name == "python-1"
        assert ("x-request-id", "python-1") in details.initial_metadata()


def test_a_server_stream_is_ordinary_protobuf():
    """Payloads that the server sends from where they lie arrive as the bytes field they are."""
    with Server() as server:
        request = kvstore_pb2.FetchRequest(first_layer=20, layers=257)
        replies = list(server.stream("Fetch", kvstore_pb2.SliceReply)(request, timeout=WAIT_S))
        size = 257 << 10
        want = bytes((i * 7 + (i >> 8)) & 255 for i in range(size))
        assert [reply.head.index for reply in replies] == list(range(20))
        assert all(reply.head.length == size and reply.data == want for reply in replies)


def chunk(data):
    return kvstore_pb2.AppendRequest(chunk=kvstore_pb2.Chunk(data=data))


def test_a_bidirectional_stream_brings_payloads_whole():
    sizes = [0, 1, 127, 128, 70000, 3 << 20]
    blocks = [bytes((i * 13 + size) & 255 for i in range(size)) for size in sizes]
    with Server() as server:
        replies = list(server.append(iter([chunk(block) for block in blocks])))
        assert [reply.stored_seq for reply in replies] == sizes
        assert [reply.durable_seq for reply in replies] == [fixture_sum(block) for block in blocks]
        assert list(server.append(iter([]))) == []


def test_a_client_stream_is_answered_at_its_end():
    with Server() as server:
        collect = server.channel.stream_unary("/reelkv.v1.KvStore/Collect", lambda m: m.SerializeToString(),
                                              kvstore_pb2.AppendReply.FromString)
        reply = collect(iter([chunk(bytes(1000)) for _ in range(40)]), timeout=WAIT_S)
        assert (reply.stored_seq, reply.durable_seq) == (40, 40000)
        assert collect(iter([]), timeout=WAIT_S).stored_seq == 0


def test_fields_in_unusual_order_are_understood():
    """The payload first, twice, followed by an unknown field: the last one counts, as protobuf says."""
    inner = b"\x7a\x03abc" + b"\x7a\x04wxyz" + b"\xa2\x06\x01?"
    raw = b"\x7a" + bytes([len(inner)]) + inner + b"\xf8\x07\x01"
    with Server() as server:
        replies = list(server.append(iter([raw]), serialize=lambda data: data))
        assert replies[0].stored_seq == 4 and replies[0].durable_seq == fixture_sum(b"wxyz")


def test_compressed_messages_are_refused_before_they_are_inflated():
    """100 MB of zeros, 100 kB on the wire: gRPC would inflate them whole and only then look at the size."""
    def memory_peak_kb():
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    with Server() as server:
        server.info()
        before = memory_peak_kb()
        for size in (1000, 100 << 20):
            expect(grpc.StatusCode.UNIMPLEMENTED,
                   lambda: list(server.append(iter([chunk(bytes(size))]), compression=grpc.Compression.Gzip)))
        assert memory_peak_kb() - before < 50_000
        server.info()


def test_garbage_bytes_are_invalid_and_harm_nobody():
    with Server() as server:
        error = expect(grpc.StatusCode.INVALID_ARGUMENT,
                       lambda: list(server.append(iter([b"\xff\xff\xff garbage"]), serialize=lambda data: data)))
        assert "not a well-formed reelkv.v1.AppendRequest" in error.details()
        host, port = server.address.rsplit(":", 1)
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64):
            with socket.create_connection((host, int(port)), WAIT_S) as raw:
                raw.sendall(noise)
        server.info()


def test_unknown_methods_and_messages_beyond_the_limit_are_told():
    with Server() as server:
        unknown = server.channel.unary_unary("/reelkv.v1.KvStore/Nothing")
        expect(grpc.StatusCode.UNIMPLEMENTED, lambda: unknown(b"", timeout=WAIT_S))
        expect(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: list(server.append(iter([chunk(bytes(17 << 20))]))))
        server.info()


def test_errors_carry_google_rpc_status():
    with Server() as server:
        request = kvstore_pb2.OpenStreamRequest(writer="no room", expected_frames=1250)
        request.geometry.layers = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        call = server.unary("OpenStream", kvstore_pb2.OpenStreamReply)
        error = expect(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: call(request, timeout=WAIT_S))
        assert error.details() == "no room"
        trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
        status = rpc_error_pb2.ErrorStatus.FromString(trailer)
        assert (status.code, status.message) == (8, "no room")
        assert status.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
        retry = rpc_error_pb2.ErrorRetryInfo.FromString(status.details[0].value)
        assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 250000000)


def test_error_details_are_readable_whatever_the_sentence_quotes():
    """Cut in the middle of a character, or with bytes that are no text: a string of protobuf must be UTF-8."""
    with Server() as server:
        call = server.channel.unary_unary("/reelkv.v1.KvStore/OpenStream", None,
                                          kvstore_pb2.OpenStreamReply.FromString)
        for writer, ending in ((b"\xc3\xa9" * 300, "\u00e9?"), (b"camera \xff", "camera ?")):
            request = kvstore_pb2.OpenStreamRequest(writer="W", expected_frames=10)
            request.geometry.layers = grpc.StatusCode.ABORTED.value[0]
            raw = request.SerializeToString()
            length = bytes([len(writer) & 127 | 128, len(writer) >> 7])
            assert raw.count(b"\x22\x01W") == 1
            raw = raw.replace(b"\x22\x01W", b"\x22" + length + writer)
            error = expect(grpc.StatusCode.ABORTED, lambda: call(raw, timeout=WAIT_S))
            trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
            status = rpc_error_pb2.ErrorStatus.FromString(trailer)
            assert status.message.endswith(ending), status.message
            assert status.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"


def test_cancel_and_deadline_reach_the_work():
    with Server() as server:
        score = server.unary("Score", kvstore_pb2.ScoreReply)
        call = score.future(kvstore_pb2.ScoreRequest(), timeout=WAIT_S)
        until(lambda: server.info().ram_used_bytes == 1, "the call did not open")
        call.cancel()
        until(lambda: server.info().frames == 1, "the handler did not hear of the cancel")
        expect(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: score(kvstore_pb2.ScoreRequest(), timeout=0.2))
        until(lambda: server.info().frames == 2, "the handler did not hear of the deadline")
        stream = server.stream("LoadWindow", kvstore_pb2.LoadWindowReply)(
            kvstore_pb2.LoadWindowRequest(tokens=64), timeout=WAIT_S)
        next(stream)
        stream.cancel()
        until(lambda: server.info().frames == 3, "the stream's handler did not hear of the cancel")


def test_a_client_that_dies_is_noticed():
    with Server() as server:
        other = grpc.insecure_channel(server.address, options=OPTIONS + [("grpc.use_local_subchannel_pool", 1)])
        held = other.unary_unary("/reelkv.v1.KvStore/Score")
        future = held.future(b"", timeout=WAIT_S)
        until(lambda: server.info().ram_used_bytes == 1, "the call did not open")
        other.close()
        until(lambda: server.info().frames == 1, "the handler did not hear of the lost client")
        del future


def test_overload_is_refused():
    with Server("--max-calls=4") as server:
        score = server.unary("Score", kvstore_pb2.ScoreReply)
        held = [score.future(kvstore_pb2.ScoreRequest(), timeout=WAIT_S) for _ in range(8)]
        until(lambda: sum(call.done() for call in held) == 4, "nobody was refused")
        refused = [call for call in held if call.done()]
        assert all(call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED for call in refused)
        for call in held:
            call.cancel()


def test_many_clients_at_once_get_their_answers():
    with Server() as server:
        wrong = []

        def work(number):
            with grpc.insecure_channel(server.address) as channel:
                ask = channel.unary_unary("/reelkv.v1.KvStore/GetServerInfo", None,
                                          kvstore_pb2.ServerInfo.FromString)
                for i in range(50):
                    name = f"{number}-{i}"
                    if ask(b"", timeout=WAIT_S, metadata=[("x-request-id", name)]).name != name:
                        wrong.append(name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_sigterm_ends_open_streams_and_the_process():
    with Server("--drain-ms=200") as server:
        stream = server.stream("LoadWindow", kvstore_pb2.LoadWindowReply)(
            kvstore_pb2.LoadWindowRequest(tokens=64), timeout=WAIT_S)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        expect(grpc.StatusCode.UNAVAILABLE, lambda: [None for _ in stream])


def test_silent_connections_do_not_hold_up_the_end():
    """One that never spoke HTTP/2, one without calls: the process ends long before drain_ms. (gRPC gives the silent
    one some 20 s to answer a ping.)"""
    with Server("--drain-ms=600000") as server:
        server.info()
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), WAIT_S):
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(4 * WAIT_S) == 0


def main():
    failed = 0
    tests = [(name, function) for name, function in globals().items()
             if name.startswith("test_") and name in (sys.argv[2:] or [name])]
    for name, function in tests:
        try:
            function()
            print(f"ok {name}", flush=True)
        except Exception:  # each test stands alone
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED {name}", flush=True)
            failed += 1
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
