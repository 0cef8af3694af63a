"""LoRAs: file dialects -> deltas -> merged weights, cached for many sets and installed by a pointer swap."""
