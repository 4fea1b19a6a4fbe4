"""A client that knows nothing of Warren but its address: it learns the API by reflection.

Arguments: HOST:PORT RECORDING MODEL. Prints one JSON object.
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, recording, model = sys.argv[1:]
channel = grpc.insecure_channel(address)
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)


def message(name, /, **fields):
    return GetMessageClass(pool.FindMessageTypeByName(f"warren.v1.{name}"))(**fields)


def method(service, name):
    found = pool.FindServiceByName(f"warren.v1.{service}").FindMethodByName(name)
    arity = ("stream" if found.client_streaming else "unary") + "_" + ("stream" if found.server_streaming else "unary")
    request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
    return getattr(channel, arity)(
        f"/warren.v1.{service}/{name}", request.SerializeToString, response.FromString, _registered_method=False
    )


def upload():
    with open(recording, "rb") as file:
        yield message("UploadRequest", header=message("UploadHeader", name="by reflection.wav"))
        while chunk := file.read(100_000):
            yield message("UploadRequest", chunk=chunk)


states = pool.FindEnumTypeByName("warren.v1.JobState").values_by_number
media = method("Media", "Upload")(upload())
spec = message("TranscribeSpec", media=media.id, model=model)
job = method("Jobs", "Submit")(message("SubmitJobRequest", transcribe=spec, request_id=f"python-{media.id}"))
again = method("Jobs", "Submit")(message("SubmitJobRequest", transcribe=spec, request_id=f"python-{media.id}"))
watched = [update for update in method("Jobs", "Watch")(message("WatchJobRequest", id=job.id))]
ended = method("Jobs", "Get")(message("GetJobRequest", id=job.id))
transcript = method("Transcripts", "Get")(message("GetTranscriptRequest", job=job.id))
print(json.dumps({
    "services": sorted(database.get_services()),
    "same_job": job.id == again.id,
    "events": [event.event for update in watched for event in update.events],
    "state": states[ended.state].name,
    "text": transcript.text,
    "complete": transcript.complete,
    "segments": len(transcript.segments),
}))
