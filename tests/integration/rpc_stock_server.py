"""A stock gRPC server (Debian's python3-grpcio) for rpc_stock_server_test.c: nothing here shares code with lib/rpc.

Prints its port on a line and serves until it is killed. What GetServerInfo does is asked for in x-request-id:
"plain" answers, "zip-N" answers with N letters compressed, "retry-N" fails with a RetryInfo of N milliseconds.
"""
import concurrent.futures
import threading

import grpc

from reelkv.v1 import kvstore_pb2
from rpc import rpc_error_pb2


def fail_with_advice(context, milliseconds):
    info = rpc_error_pb2.ErrorRetryInfo()
    info.retry_delay.seconds, rest = divmod(milliseconds, 1000)
    info.retry_delay.nanos = rest * 1000000
    status = rpc_error_pb2.ErrorStatus(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="busy")
    status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info.SerializeToString())
    context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")


def get_server_info(_, context):
    wanted, _, number = dict(context.invocation_metadata())["x-request-id"].partition("-")
    if wanted == "retry":
        fail_with_advice(context, int(number))
    if wanted == "zip":
        context.set_compression(grpc.Compression.Gzip)
    return kvstore_pb2.ServerInfo(name="n" * int(number or 1))


def append(requests, _):
    for request in requests:
        yield kvstore_pb2.AppendReply(stored_seq=len(request.chunk.data), durable_seq=sum(request.chunk.data))


HANDLERS = {
    "GetServerInfo": grpc.unary_unary_rpc_method_handler(
        get_server_info, kvstore_pb2.GetServerInfoRequest.FromString, kvstore_pb2.ServerInfo.SerializeToString),
    "Append": grpc.stream_stream_rpc_method_handler(
        append, kvstore_pb2.AppendRequest.FromString, kvstore_pb2.AppendReply.SerializeToString),
}


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4),
                         options=[("grpc.max_send_message_length", 256 << 20),
                                  ("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("reelkv.v1.KvStore", HANDLERS),))
    print(f"port {server.add_insecure_port('127.0.0.1:0')} ready", flush=True)
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
