"""What every process of tests/pipeline/hours.py needs, loaded once."""
# ruff: noqa: F401

import onnxruntime.quantization
import prometheus_client  # before Feast: see tests/conftest.py
import torch
import torch._inductor
import torch.onnx.utils

import feature_repo.definitions
import feature_repo.online_store
import pipeline.online
import pipeline.publish
import training.finetune
import training.nightly

torch.set_num_threads(1)
