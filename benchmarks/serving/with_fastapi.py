"""Plain FastAPI and pandas around the Pipeline: `uvicorn with_fastapi:app`, with the Pipeline's file in PIPELINE."""

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

pipeline = joblib.load(os.environ["PIPELINE"])
app = FastAPI()


class Asked(BaseModel):
    rows: list[dict[str, Any]]


@app.post("/predict")
def predict(asked: Asked) -> dict[str, Any]:
    scores = pipeline.predict_proba(pd.DataFrame(asked.rows))[:, 1]
    return {"predictions": [{"label": bool(score > 0.5), "score": float(score)} for score in scores]}
