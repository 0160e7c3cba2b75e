__version__ = "0.13.0"
_SHOWN = {     # name → module that has it
    "Answer": "detect.answers",
    "Detector": "detect.predict",
    "load_model": "detect.predict",
    **dict.fromkeys(("train_text", "train_image", "train_audio", "train_video", "train_fusion", "predict_multimodal"),
                    "training.functions"),
}
__all__ = ["Answer", "Detector", "__version__", "load_model", "predict_multimodal", "train_audio", "train_fusion",
           "train_image", "train_text", "train_video"]


def __getattr__(name):
    "`from multimodal_fakes import Detector`, loaded when it is asked for"
    if name not in _SHOWN: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    if _SHOWN[name] == "detect.predict": import_module(f"{__name__}.detect.show")     # gives it `Detector.show`
    return getattr(import_module(f"{__name__}.{_SHOWN[name]}"), name)


def __dir__(): return sorted({*globals(), *__all__})
