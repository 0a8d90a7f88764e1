"""int8 for CPUs: a step graph whose network computes in 8 bits, calibrated on the model's runs."""
