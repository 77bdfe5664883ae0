"""The same in Prefect: each step a task whose result is kept for equal inputs. python with_prefect.py DATA MLFLOW"""

import sys

import blog
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

kept = task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)

load, clean, featurise, split = (kept(each) for each in (blog.load, blog.clean, blog.featurise, blog.split))
train, evaluate, log = kept(blog.train), kept(blog.evaluate), kept(blog.log)


@flow
def orders(data: str, uri: str) -> None:
    learn, test = split(featurise(clean(load(data, blog.fingerprint(data)))))
    pipeline, folds = train(learn)
    values, scores = evaluate(pipeline, test)
    version = log(pipeline, folds, values, scores, test, uri)
    print(f"version {version}: {values}")


if __name__ == "__main__":
    orders(*sys.argv[1:])
