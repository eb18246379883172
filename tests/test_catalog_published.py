"""The published modules: every handle of tfhub.dev, every form of its name, and names that never were."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import KINDS, configurations, published_modules
from mobilenet_hub.cli.models import markdown
from mobilenet_hub.errors import UnknownModuleError

MODULES = published_modules()
PREVIEW = "google/tf2-preview/mobilenet_v2"
any_module = st.sampled_from(MODULES)


def refusal(name: str) -> str:
    with pytest.raises(UnknownModuleError) as caught:
        find_module(name)
    return str(caught.value)


def slim_handles(shared) -> list[str]:
    return shared("reference/tfhub_handles.txt").read_text("utf-8").split()


def test_the_catalogue_is_the_published_list(shared):
    handles = slim_handles(shared)
    assert len(handles) == 420
    assert [m.handle for m in MODULES] == [handle for handle in handles if "/quantops/" not in handle]


def test_every_published_line_is_found_or_refused_with_its_float_module(shared):
    for handle in slim_handles(shared):
        if "/quantops/" in handle:
            text = refusal(handle)
            assert handle.split("/quantops/")[0] in text.replace(repr(handle), "")  # the float module of the same size
            assert "is a quantops module" in text and "int8" in text and "--format litert" in text
        else:
            assert find_module(handle).handle == handle


def test_the_counts_of_the_families():
    counts = Counter((m.family, m.architecture) for m in MODULES)
    assert counts == {
        ("imagenet", "mobilenet_v1"): 128,
        ("imagenet", "mobilenet_v2"): 220,
        ("tf2-preview", "mobilenet_v2"): 8,
    }
    assert len(configurations()) == 38
    assert {m.configuration for m in MODULES} == set(configurations())


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.handle)
def test_every_form_of_a_name(module):
    handle = module.handle
    for name in (
        handle,
        f" {handle} ",
        f"/{handle}/",
        f"https://tfhub.dev/{handle}",
        f"http://tfhub.dev/{handle}/",
        f"HTTPS://TFHub.dev/{handle}?tf-hub-format=compressed",
        f"tfhub.dev/{handle}#usage",
        f"https://hub.tensorflow.google.cn/{handle}",
        module.url,
    ):
        assert find_module(name) is module, name
    if module.family == "imagenet":
        assert find_module(handle.removeprefix("google/imagenet/")) is module
    latest = max((m for m in MODULES if m.stem == module.stem), key=lambda m: m.version)
    for name in (module.stem, f"https://tfhub.dev/{module.stem}/", module.stem.removeprefix("google/imagenet/")):
        if module.family == "imagenet" or name.count("google"):
            assert find_module(name) is latest


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.handle)
def test_kaggles_forms_and_numbers(module):
    owner, model, framework, variation, version = module.kaggle_handle.split("/")
    for spelled in (framework, framework[0].lower() + framework[1:], framework.lower()):
        short = f"{owner}/{model}/{spelled}/{variation}"
        long = f"https://www.kaggle.com/models/{owner}/{model}/frameworks/{spelled}/variations/{variation}"
        for name in (
            f"{short}/{version}",
            f"https://www.kaggle.com/models/{short}/{version}?tfhub-redirect=true",
            f"kaggle.com/models/{short}/{version}/",
            f"{long}/versions/{version}",
        ):
            assert find_module(name) is module, name
        latest = max(
            (m for m in MODULES if m.stem == module.stem and m.format == module.format), key=lambda m: m.version
        )
        assert find_module(short) is find_module(long) is latest


@pytest.mark.parametrize(
    "kaggle, name",
    [
        ("google/mobilenet-v2/TensorFlow2/130-224-classification/1", "mobilenet_v2_130_224/classification/4"),
        ("google/mobilenet-v2/TensorFlow2/100-224-feature-vector/2", "mobilenet_v2_100_224/feature_vector/5"),
        ("google/mobilenet-v2/tensorFlow2/tf2-preview-feature-vector/4", f"{PREVIEW}/feature_vector/4"),
        ("google/mobilenet-v2/TensorFlow1/035-224-feature-vector/2", "mobilenet_v2_035_224/feature_vector/2"),
        ("google/mobilenet-v1/TensorFlow1/025-128-classification/2", "mobilenet_v1_025_128/classification/3"),
    ],
)  # fmt: skip
def test_kaggles_renumbered_versions(kaggle, name):
    assert find_module(kaggle) is find_module(name)


def test_what_the_versions_mean():
    """The module pages' properties; uniform over all sizes (one line for each architecture, version and kind)."""
    cases = {
        # handle: format, fixed size, momentum, configurable, labels, signatures
        "mobilenet_v1_025_128/classification/1": ("hub1", True, 0.9997, False, True, "d c f"),
        "mobilenet_v1_025_128/classification/3": ("hub1", False, 0.99, True, True, "d c f cb fb"),
        "mobilenet_v1_025_128/classification/4": ("savedmodel2", False, 0.99, True, True, ""),
        "mobilenet_v1_025_128/classification/5": ("savedmodel2", False, 0.99, True, True, "s"),
        "mobilenet_v1_100_224/feature_vector/1": ("hub1", True, 0.9997, False, False, "d f"),
        "mobilenet_v1_100_224/feature_vector/3": ("hub1", False, 0.99, True, False, "d f fb"),
        "mobilenet_v1_100_224/feature_vector/4": ("savedmodel2", False, 0.99, True, False, ""),
        "mobilenet_v1_100_224/feature_vector/5": ("savedmodel2", False, 0.99, True, False, "s"),
        "mobilenet_v2_035_96/classification/1": ("hub1", True, 0.997, False, False, "d c f"),
        "mobilenet_v2_035_96/classification/2": ("hub1", True, 0.997, False, True, "d c f"),
        "mobilenet_v2_035_96/classification/3": ("hub1", True, 0.99, True, True, "d c f cb fb"),
        "mobilenet_v2_035_96/classification/4": ("savedmodel2", True, 0.99, True, True, ""),
        "mobilenet_v2_035_96/classification/5": ("savedmodel2", True, 0.99, True, True, "s"),
        "mobilenet_v2_140_224/feature_vector/2": ("hub1", True, 0.997, False, False, "d f"),
        "mobilenet_v2_140_224/feature_vector/3": ("hub1", True, 0.99, True, False, "d f fb"),
        "google/tf2-preview/mobilenet_v2/classification/1": ("savedmodel2", True, 0.997, False, False, ""),
        "google/tf2-preview/mobilenet_v2/classification/4": ("savedmodel2", True, 0.997, False, True, ""),
        "google/tf2-preview/mobilenet_v2/feature_vector/4": ("savedmodel2", True, 0.997, False, False, ""),
    }
    names = {"d": "default", "c": "image_classification", "f": "image_feature_vector", "s": "serving_default"}
    names |= {"cb": "image_classification_with_bn_hparams", "fb": "image_feature_vector_with_bn_hparams"}
    for name, (form, fixed, momentum, configurable, labels, signatures) in cases.items():
        m = find_module(name)
        assert (m.format, m.fixed_size, m.has_labels) == (form, fixed, labels), name
        assert (m.batch_norm_momentum, m.momentum_configurable) == (momentum, configurable), name
        assert m.signatures == tuple(names[s] for s in signatures.split()), name
        assert m.num_classes == (1001 if m.kind == "classification" else 0)


def test_a_module_says_what_its_page_says():
    m = find_module("mobilenet_v2_130_224/feature_vector/4")
    assert (m.architecture, m.depth_multiplier, m.image_size, m.num_features) == ("mobilenet_v2", 1.3, (224, 224), 1664)
    assert m.description == (
        "Feature vectors of images with MobileNet V2 (depth multiplier 1.30) trained on ImageNet (ILSVRC-2012-CLS)."
    )
    assert m.checkpoint == "mobilenet_v2_1.3_224/mobilenet_v2_1.3_224.ckpt"
    assert m.page["network-architecture"] == "MobileNet V2"
    assert list(m.changelog) == [1, 2, 3, 4]
    v1 = find_module("mobilenet_v1_050_160/classification")
    assert v1.checkpoint == "mobilenet_v1_2018_02_22/mobilenet_v1_0.5_160/mobilenet_v1_0.5_160.ckpt"
    assert v1.checkpoint_url.endswith("/models/mobilenet_v1_2018_02_22/mobilenet_v1_0.5_160.tgz")
    assert list(v1.changelog) == [1, 3, 4, 5]


def test_the_seed_pages_agree_with_the_catalogue(shared):
    """The changelogs, sizes and momenta in the catalogue are those of the pages that describe the system."""
    pages = {
        "google/imagenet/mobilenet_v2_130_224/feature_vector/4": "seeds/001_533061e04a659059.txt",
        "google/tf2-preview/mobilenet_v2/classification/4": "seeds/003_f55ad186e418b2b7.txt",
        "google/imagenet/mobilenet_v2_075_96/feature_vector/2": "seeds/004_b59e42490da7ed5a.txt",
    }
    for handle, file in pages.items():
        module = find_module(handle)
        words = " ".join(shared(file).read_text("utf-8").replace("[", "").split())
        height, width = module.image_size
        assert f"input size of {height}x{width} pixels" in words
        assert f"`{module.checkpoint}`" in words
        assert module.description.replace("[TF2]", "TF2]") in words
        assert ("is fixed to" in words) == module.fixed_size
        assert ("batch_norm_momentum" in words) == module.momentum_configurable
        assert ("ImageNetLabels.txt" in words) == module.has_labels
        for version, changes in module.changelog.items():
            assert f"#### Version {version} " in words
            for change in changes:
                assert change.split(", GitHub")[0].split(" (GitHub")[0] in words


@pytest.mark.parametrize(
    "name, offered",
    [
        ("google/imagenet/mobilenet_v1_025_128/feature_vector/2", "versions are 1, 3, 4, 5"),
        ("mobilenet_v2_130_224/feature_vector/6", "versions are 1, 2, 3, 4, 5"),
        ("https://tfhub.dev/google/tf2-preview/mobilenet_v2/classification/5", "versions are 1, 2, 3, 4"),
        ("google/mobilenet-v2/TensorFlow2/130-224-classification/4", "versions are 1, 2"),
        ("google/mobilenet-v1/TensorFlow1/025-128-classification/3", "versions are 1, 2"),
        ("mobilenet_v2_130_192/feature_vector", "image sizes of mobilenet_v2_130 are 224"),
        ("mobilenet_v1_100_96/feature_vector", "image sizes of mobilenet_v1_100 are 128, 160, 192, 224"),
        ("google/imagenet/mobilenet_v2_035_096/classification/4", "96, 128, 160, 192, 224"),
        ("mobilenet_v1_130_224/classification", "depth multipliers of mobilenet_v1 are 025, 050, 075, 100"),
        ("mobilenet_v2_025_224/classification", "depth multipliers of mobilenet_v2 are 035, 050, 075, 100, 130, 140"),
        ("mobilenet_v2_130_224", "mobilenet_v2_130_224/classification, mobilenet_v2_130_224/feature_vector"),
        ("google/imagenet/mobilenet_v2_130_224/features/4", "mobilenet_v2_130_224/feature_vector"),
        ("google/imagenet/mobilnet_v2_130_224/feature_vector/4", "did you mean google/imagenet/mobilenet_v2_130_224/"),
        ("google/tf2-preview/mobilenet_v2/clasification", "google/tf2-preview/mobilenet_v2/classification"),
        ("google/mobilenet-v2/TensorFlow1/tf2-preview-classification", "tf2-preview/mobilenet_v2/classification/4"),
        ("google/imagenet/mobilenet_v1_025_128/quantops/classification/4", "versions are 1, 3"),
        ("google/imagenet/mobilenet_v2_100_224/quantops/classification/3", "of MobileNet V1 only; use the float"),
        ("google/tfjs-model/imagenet/mobilenet_v1_050_160/classification/3/default/1", "mobilenet_v1_050_160/"),
        ("google/mobilenet-v2/TfJs/130-224-classification/3", "google/imagenet/mobilenet_v2_130_224/classification"),
        ("google/mobilenet-v1/tfLite/025-128-classification", "google/imagenet/mobilenet_v1_025_128/classification"),
        ("google/mobilenet-v1/jax/025-128-classification", "use TensorFlow1 or TensorFlow2"),
        ("tensorflow/lite-model/mobilenet_v1_0.50_160_quantized/1/metadata/1", "mobilenet_v1_050_160/classification"),
        ("https://tfhub.dev/tensorflow/lite-model/mobilenet_v2_1.0_224/1/default/1", "mobilenet_v2_100_224/"),
        ("https://tfhub.dev/tensorflow/lite-model/x", "mobilenet models"),
        ("https://example.com/google/imagenet/mobilenet_v2_130_224/classification/4", "not an address of TF Hub"),
        ("https://www.kaggle.com/datasets/x/y", "not a Kaggle model"),
        ("https://www.kaggle.com/models/google/mobilenet-v3/TensorFlow2/a/1", "Kaggle handle of a MobileNet"),
        ("resnet50", "mobilenet models"),
        ("", "short form"),
    ],
)  # fmt: skip
def test_a_name_that_never_was_is_refused_with_what_there_is(name, offered):
    text = refusal(name)
    assert offered in text
    assert name[:100] in text


def test_only_text_is_a_name():
    with pytest.raises(UnknownModuleError, match="must be a string, not NoneType"):
        find_module(None)  # type: ignore[arg-type]


def test_a_very_long_name_is_cut_in_the_error():
    assert len(refusal("mobilenet_v2_" + "9" * 100_000)) < 1000


@given(st.text(max_size=80))
def test_no_text_does_anything_but_be_refused(text):
    try:
        assert find_module(text) in MODULES
    except UnknownModuleError as error:
        assert str(error)


@given(any_module, st.data())
def test_a_damaged_name_is_found_or_refused(module, data):
    """Insert, drop or replace one character anywhere in any form of a name."""
    name = data.draw(st.sampled_from([module.url, module.handle, module.kaggle_handle, module.stem]))
    at = data.draw(st.integers(0, len(name)))
    new = data.draw(
        st.sampled_from(["", "/", "?", "#", "%", "[", "]", ":", "@", "٤", "\n", "-", "_", *ascii_lowercase])
    )
    damaged = name[:at] + new + name[at + data.draw(st.integers(0, 1)) :]
    try:
        found = find_module(damaged)
    except UnknownModuleError:
        return
    assert find_module(found.handle) is found


@given(
    st.sampled_from(["mobilenet_v1", "mobilenet_v2"]),
    st.integers(0, 200),
    st.integers(0, 300),
    st.sampled_from(KINDS),
    st.integers(0, 9),
)
def test_exactly_the_published_handles_exist(architecture, depth, size, kind, version):
    handle = f"google/imagenet/{architecture}_{depth:03d}_{size}/{kind}/{version}"
    try:
        assert find_module(handle).handle == handle
    except UnknownModuleError:
        assert handle not in {m.handle for m in MODULES}


def test_the_module_table_of_the_docs_has_not_drifted():
    page = Path(__file__).parents[1] / "docs" / "modules.md"
    assert page.read_text("utf-8") == markdown(configurations()), "run: mobilenet models --markdown > docs/modules.md"


def test_the_catalogue_imports_nothing_but_the_standard_library():
    code = "import sys, mobilenet_hub.catalog.published; print(*(n.split('.')[0] for n in sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    loaded = set(done.stdout.split()) - {"mobilenet_hub", "__main__"}
    assert not loaded - sys.stdlib_module_names
