"""The same in Metaflow: each step a process whose results are kept. python with_metaflow.py run --data D --uri U"""

import blog
from metaflow import FlowSpec, Parameter, step


class Orders(FlowSpec):
    """The blog's pipeline."""

    data = Parameter("data", default="")
    uri = Parameter("uri", default="")

    @step
    def start(self):
        self.rows = blog.load(self.data)
        self.next(self.clean)

    @step
    def clean(self):
        self.rows = blog.clean(self.rows)
        self.next(self.featurise)

    @step
    def featurise(self):
        self.learn, self.test = blog.split(blog.featurise(self.rows))
        self.next(self.train)

    @step
    def train(self):
        self.pipeline, self.folds = blog.train(self.learn)
        self.next(self.evaluate)

    @step
    def evaluate(self):
        self.values, self.scores = blog.evaluate(self.pipeline, self.test)
        self.next(self.end)

    @step
    def end(self):
        self.version = blog.log(self.pipeline, self.folds, self.values, self.scores, self.test, self.uri)
        print(f"version {self.version}: {self.values}")


if __name__ == "__main__":
    Orders()
