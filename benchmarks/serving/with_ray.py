"""Ray Serve around the Pipeline: `python with_ray.py PORT`, with the Pipeline's file in PIPELINE."""

import os
import sys
from typing import Any

import joblib
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment
class Orders:
    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["PIPELINE"])

    async def __call__(self, request: Request) -> dict[str, Any]:
        asked = await request.json()
        scores = self.pipeline.predict_proba(pd.DataFrame(asked["rows"]))[:, 1]
        return {"predictions": [{"label": bool(score > 0.5), "score": float(score)} for score in scores]}


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Orders.bind(), route_prefix="/predict", blocking=True)
