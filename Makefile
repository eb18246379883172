# What a developer runs, and what .ci/run runs. Install first: pip install -e '.[test,dev,docs,all,interop]'

.PHONY: lint types test format docs site

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

# The documentation as a site, in build/site; a link that leads nowhere fails it. PHOTOS=ants_bees.zip: with real photos.
site:
	python recipes/make_site.py $(if $(PHOTOS),--photos $(PHOTOS))
