"""The release's ONNX graph behind plain FastAPI: `uvicorn with_onnx:app`, with the graph's file in GRAPH.

As a person would write it who has the graph and wants it fast: the features are sent ready, they are looked at by a
pydantic model, and the graph runs in the event loop, without a thread's detour. No contract, limits, keys, row
features, metrics or swaps.
"""

import json
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
# The optimiser would drop a cast that the model needs.
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
reads = json.loads(session.get_modelmeta().custom_metadata_map["reads"])
numbers, texts = reads["numbers"], reads["texts"]
app = FastAPI()


class Order(BaseModel):
    distance_km: float | None
    items: float
    order_value: float
    preparation_minutes: float | None
    promised_minutes: float
    temperature: float | None
    rain_mm: float | None
    courier_load: float
    restaurant_load: float
    value_per_item: float
    minutes_per_km: float | None
    hour: float
    zone: str
    vehicle: str
    weather: str
    kitchen: str
    payment: str
    weekday: str


class Asked(BaseModel):
    rows: list[Order]


class Answer(BaseModel):
    label: bool
    score: float


class Answers(BaseModel):
    predictions: list[Answer]


@app.post("/predict")
async def predict(asked: Asked) -> Answers:
    given = {
        "numbers": np.array([[getattr(row, name) for name in numbers] for row in asked.rows], dtype=np.float64),
        "texts": np.array([[getattr(row, name) for name in texts] for row in asked.rows], dtype=object),
    }
    [shares] = session.run(["raw"], given)
    return Answers(predictions=[Answer(label=score > 0.5, score=score) for score in shares[:, 1].tolist()])
