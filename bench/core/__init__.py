"""The words that plug-ins speak: images, threat models, detectors, attacks, scores, randomness."""
