"""A service on Starlette and uvicorn that classifies digits. Requests that arrive together run as one batch.

    python examples/service/protected.py --port 8000
    curl localhost:8000/classify -d '{"images": [[0, 0, 5, ... 64 numbers in all]]}'

On SIGTERM or Ctrl-C it takes no more requests, answers those it has, and ends.
"""

import argparse
import contextlib
import json

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import nn

from tempo.errors import ServiceBusy
from tempo.serving import Batcher

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10)
)  # weights: safetensors.torch.load_model(model, path)
model.eval()


def classify(requests):
    """Probabilities for the images of each request, one batch for all of them."""
    with torch.inference_mode():
        probabilities = model(torch.cat(requests)).softmax(1)
    return [each.tolist() for each in probabilities.split([len(images) for images in requests])]


@contextlib.asynccontextmanager
async def lifespan(app):
    async with Batcher(classify, most=64, wait_s=0.01, waiting=256) as app.state.batcher:
        yield


LARGEST = 1 << 20  # bytes of a request's body


async def body_of(request):
    """None for one that is too large, of which no more is read."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return None
    return bytes(body)


async def answer(request):
    if (body := await body_of(request)) is None:
        return JSONResponse({"error": f"expected a body of at most {LARGEST} bytes"}, status_code=413)
    try:
        images = torch.tensor(json.loads(body)["images"], dtype=torch.float32)
        if images.ndim != 2 or images.shape[1] != 64 or not 1 <= len(images) <= 256:
            raise ValueError
        # Batches mix clients: the rounding of the largest values would drown the rows of others.
        if not ((images >= 0) & (images <= 16)).all():
            raise ValueError
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, RecursionError):
        expected = 'expected {"images": [...]}, 1 to 256 images of 64 numbers from 0 to 16 each'
        return JSONResponse({"error": expected}, status_code=400)
    try:
        return JSONResponse({"probabilities": await request.app.state.batcher.submit(images)})
    except ServiceBusy as busy:
        return JSONResponse({"error": str(busy)}, status_code=503, headers={"Retry-After": "1"})


async def health(request):
    return JSONResponse({"ok": True})


async def failed(request, error):
    """What went wrong is in the log; a client learns that it was not its request."""
    return JSONResponse({"error": "the model could not be run: see the service's log"}, status_code=500)


routes = [Route("/classify", answer, methods=["POST"]), Route("/health", health)]
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={Exception: failed})

if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, **vars(options.parse_args()), timeout_graceful_shutdown=20)
