"""`ml-assets exporter`: what Prometheus reads of the pipeline, beside what the endpoint server says of itself."""
