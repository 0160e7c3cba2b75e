"""Measurements beside peers: not tests, never run by them."""
import os
import platform


def machine() -> str:
    "The machine in words: processor, cores, accelerator"
    import torch
    name = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, {os.cpu_count()} cores, {accelerator}"


def entry(name, ours, peer, ratio, unit, higher_is_better, command, data) -> dict:
    "One figure of bench/results.json"
    return dict(name=name, ours=ours, peer=peer, ratio=ratio, unit=unit, higher_is_better=higher_is_better, command=command, machine=machine(), data=data)
