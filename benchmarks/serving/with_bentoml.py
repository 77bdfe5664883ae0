"""BentoML around the Pipeline: `bentoml serve with_bentoml:Orders`, with the Pipeline's file in PIPELINE."""

import os

import bentoml
import joblib
import pandas as pd


@bentoml.service
class Orders:
    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["PIPELINE"])

    @bentoml.api
    def predict(self, rows: pd.DataFrame) -> dict:
        scores = self.pipeline.predict_proba(rows)[:, 1]
        return {"predictions": [{"label": bool(score > 0.5), "score": float(score)} for score in scores]}
