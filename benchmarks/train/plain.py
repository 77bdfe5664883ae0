"""The plain script: python plain.py DATA MLFLOW"""

import sys

import blog

if __name__ == "__main__":
    data, uri = sys.argv[1:]
    learn, test = blog.split(blog.featurise(blog.clean(blog.load(data))))
    pipeline, folds = blog.train(learn)
    values, scores = blog.evaluate(pipeline, test)
    version = blog.log(pipeline, folds, values, scores, test, uri)
    print(f"version {version}: {values}")
