# What a developer runs, and what .ci/run runs. Install first: pip install -e '.[test,dev,all,interop]'

.PHONY: lint types test format docs

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

types:
	pyright

# The tests that touch Keras run once per backend; the last line is the whole suite with the default backend.
test:
	KERAS_BACKEND=jax pytest -n 2 -m keras_backend
	KERAS_BACKEND=torch pytest -n 2 -m keras_backend
	pytest -n 2

docs:
	python recipes/make_docs.py
