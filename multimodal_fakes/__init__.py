__version__ = "0.5.0"


def __getattr__(name):
    "`from multimodal_fakes import Detector`, loaded when it is asked for"
    if name != "Detector": raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multimodal_fakes.detect.predict import Detector
    return Detector
