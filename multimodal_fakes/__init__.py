__version__ = "0.8.0"
__all__ = ["Answer", "Detector", "__version__", "load_model"]


def __getattr__(name):
    "`from multimodal_fakes import Detector`, loaded when it is asked for"
    if name in ("Detector", "load_model"):
        from multimodal_fakes.detect import predict
        return getattr(predict, name)
    if name == "Answer":
        from multimodal_fakes.detect.answers import Answer
        return Answer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *__all__})
