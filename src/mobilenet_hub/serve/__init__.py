"""An HTTP server for modules: our own requests, TensorFlow Serving's, the Open Inference Protocol's, and a page.

Read the files in this order: limits, body, served, batcher, state, own, tensorflow_serving, open_inference, metrics,
exchange, openapi, app, connection, visitors, run.
"""
