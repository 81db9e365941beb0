/* The parts of test_golden: one function per kind of file, each on one device. */
#ifndef PSK_TESTS_GOLDEN_H
#define PSK_TESTS_GOLDEN_H

/* Limit of rms(error) / rms(reference) in fp32. */
#define GOLDEN_LIMIT 1e-5

/* Prints one line for a quantity of a file, "PASS" or "FAIL" (NaN fails); returns the number of failures, 0 or 1. */
int golden_report(const char *device_name, const char *path, const char *quantity, double error);

/* A model_* file: prints one line per quantity, returns the number of failures. */
int golden_model_file(const char *path, const char *device_name);

#endif
