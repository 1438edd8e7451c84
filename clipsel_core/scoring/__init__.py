"""The metrics, as pure functions on tensors: CLIPScore, s-CLIPLoss and NormSim (arXiv 2405.19547)."""
