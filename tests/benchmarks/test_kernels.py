"""The lists of layers are those of the networks, and a measurement covers them."""

from benchmarks import kernels, subjects


def test_resnet50_has_the_published_number_of_multiply_adds():
    assert sum(layer.macs * layer.times for layer in kernels.resnet50()) == 4_089_184_256


def test_mobilenet_v2_is_what_mmcls_builds():
    model = subjects.assembled(subjects.SUBJECTS["mobilenet_v2"], 48)
    protocols = [step.protocol for step in model.public.plan(1).linear]
    assert sum(layer.times for layer in kernels.mobilenet_v2()) == len(protocols)
    assert sum(layer.macs * layer.times for layer in kernels.mobilenet_v2()) == subjects.macs(model)


def test_each_layer_is_listed_once():
    layers = kernels.mobilenet_v2()
    assert len(set(map(str, layers))) == len(layers)


def test_rates_of_layers_add_up_by_time():
    rows = [
        {"times": 2, "milliseconds": 1.0, "gmac_per_second": 30.0, "depthwise": False},
        {"times": 1, "milliseconds": 2.0, "gmac_per_second": 10.0, "depthwise": True},
    ]
    assert kernels.together(rows) == 20.0
    assert kernels.together(rows, depthwise=True) == 10.0


def test_a_layer_is_measured_in_every_ring():
    layer = kernels.Layer(3, 8, 9, 3, 2, times=4)
    for bits in (32, 48):
        (row,) = kernels.measure([layer], bits, seconds=0)
        assert row["times"] == 4 and row["gmac_per_second"] > 0 and not row["depthwise"]
