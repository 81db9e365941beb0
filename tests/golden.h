/* The parts of test_golden: one function per kind of file, each on one device. */
#ifndef PSK_TESTS_GOLDEN_H
#define PSK_TESTS_GOLDEN_H

/* Limit of rms(error) / rms(reference) in fp32. */
#define GOLDEN_LIMIT 1e-5

/* Limit of what lies behind a model's backward pass. Gradients of LayerNorms before a polynomial nearly cancel:
 * changing every weight by at most one rounding (2^-23) moves them by up to 1.2e-5, and the gradient norm of step 3
 * by 1.5e-5, in the reference's double arithmetic. The limit leaves room for the roundings of the activations. */
#define GOLDEN_MODEL_LIMIT 1e-4

/* Prints one line for a quantity of a file, "PASS" or "FAIL" (above the limit, or NaN); returns the number of failures,
 * 0 or 1. */
int golden_report(const char *device_name, const char *path, const char *quantity, double error, double limit);

/* A model_* file: prints one line per quantity, returns the number of failures. */
int golden_model_file(const char *path, const char *device_name);

#endif
