/* Models in folders: weights, config.json, presets. */
#include "pass_fixture.h"

#include "base/files.h"
#include "io/safetensors.h"

#include <math.h>

static char *in(const char *folder, const char *name) {
    char *path;
    PSK_TEST_OK(psk_join_path(folder, name, &path));
    return path;
}

static void test_saving_and_loading_changes_no_bit(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *deeper = in(folder, "models/new");
    psk_device *device = fixture_device(0);
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.attention.far_scale = 1.0f / 3.0f;
        psk_model *saved = fixture_model(device, &config), *loaded;
        PSK_TEST_OK(psk_model_save(saved, deeper));
        PSK_TEST_OK(psk_model_load(device, deeper, &loaded));
        json_t *want, *got;
        PSK_TEST_OK(psk_config_to_json(psk_model_get_config(saved), &want));
        PSK_TEST_OK(psk_config_to_json(psk_model_get_config(loaded), &got));
        assert_true(json_equal(got, want));
        json_decref(got);
        json_decref(want);
        assert_int_equal(loaded->params.floats, saved->params.floats);
        assert_memory_equal(loaded->weights, saved->weights, (size_t)saved->params.floats * sizeof(float));
        psk_model_free(loaded);
        psk_model_free(saved);
    }
    psk_device_free(device);
    psk_free(deeper);
    psk_test_remove_folder(folder);
}

/* Writes the model's tensors with one left out, one of another shape, or one more. */
typedef enum { LEFT_OUT, RESHAPED, ADDED } defect;

static void write_defective(const psk_model *model, const char *folder, defect how, const char *name) {
    psk_tensor_source sources[128];
    int64_t count = 0;
    psk_model_tensor tensor;
    for (int64_t i = 0; psk_model_tensor_at(model, i, &tensor); i++) {
        psk_tensor_source source = {tensor.name, PSK_F32, tensor.dims, {tensor.shape[0], tensor.shape[1]}, tensor.data};
        const bool meant = strcmp(tensor.name, name) == 0;
        if (meant && how == RESHAPED) {
            source.shape[0] = tensor.shape[1];
            source.shape[1] = tensor.shape[0];
        }
        if (!(meant && how == LEFT_OUT))
            sources[count++] = source;
    }
    if (how == ADDED)
        sources[count++] = (psk_tensor_source){name, PSK_F32, 1, {1}, model->weights};
    char *path = in(folder, "model.safetensors");
    PSK_TEST_OK(psk_safetensors_write(path, sources, count, NULL));
    psk_free(path);
}

static void test_wrong_weights_are_named(void **state) {
    (void)state;
    char *folder = psk_test_folder();
    psk_device *device = fixture_device(0);
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    psk_model *model = fixture_model(device, &config), *loaded;
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FILE, "config.json");
    PSK_TEST_OK(psk_model_save(model, folder));
    write_defective(model, folder, LEFT_OUT, "blocks.1.attn.out.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.1.attn.out.weight",
                   "not there");
    write_defective(model, folder, RESHAPED, "blocks.0.mlp.up.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.0.mlp.up.weight", "160",
                   "32");
    write_defective(model, folder, ADDED, "blocks.2.ln_1.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.2.ln_1.weight",
                   "unexpected");
    assert_null(loaded);
    psk_model_free(model);
    psk_model_free(NULL);
    psk_device_free(device);
    psk_test_remove_folder(folder);
}

/* A softmax model sees all keys, whatever `local` its file says or lacks, until the file says local_only. */
static void expect_local_only_to_be_said(const char *path) {
    static const char *const said[] = {"", ", \"local\": \"block\"", ", \"local\": \"window\", \"block_size\": 7",
                                       ", \"local_only\": false, \"local\": \"window\""};
    char text[512];
    psk_model_config config, again;
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        snprintf(text, sizeof text,
                 "{\"attention\": \"softmax\", \"vocab_size\": 9, \"n_positions\": 4, \"n_embd\": 8, "
                 "\"n_layer\": 1, \"n_head\": 2%s}",
                 said[i]);
        PSK_TEST_OK(psk_write_file(path, text, strlen(text)));
        PSK_TEST_OK(psk_model_config_read(path, &config));
        assert_int_equal(config.attention.local_only, 0);
        assert_int_equal(psk_attention_tail(&config.attention, 100), 100);
        PSK_TEST_OK(psk_model_config_write(path, &config));
        PSK_TEST_OK(psk_model_config_read(path, &again));
        assert_int_equal(again.attention.local_only, 0);
    }
    config.attention.local_only = 1;
    config.attention.local = PSK_LOCAL_BLOCK;
    PSK_TEST_OK(psk_model_config_write(path, &config));
    PSK_TEST_OK(psk_model_config_read(path, &again));
    assert_int_equal(again.attention.local_only, 1);
    assert_int_equal(again.attention.local, PSK_LOCAL_BLOCK);
    assert_int_equal(again.attention.block_size, config.attention.block_size);
    assert_int_equal(psk_attention_tail(&again.attention, 100), 100 % config.attention.block_size);
}

/* A file that does not give far_scale means what it meant when the first such files were written. */
static void expect_unwritten_far_scale(const char *path) {
    static const struct {
        const char *sketch, *local;
        float far_scale;
    } files[] = {{"random", "block", 1.0f / 25},
                 {"random_hadamard", "window", 1.0f / 25},
                 {"random", "none", 1},
                 {"learned", "block", 1},
                 {"learned_linear", "window", 1}};
    char text[512];
    psk_model_config config;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(text, sizeof text,
                 "{\"attention\": \"polysketch\", \"sketch\": \"%s\", \"local\": \"%s\", \"degree\": 4, "
                 "\"sketch_size\": 5, \"block_size\": 7, \"vocab_size\": 9, \"n_positions\": 4, \"n_embd\": 8, "
                 "\"n_layer\": 1, \"n_head\": 2}",
                 files[i].sketch, files[i].local);
        PSK_TEST_OK(psk_write_file(path, text, strlen(text)));
        PSK_TEST_OK(psk_model_config_read(path, &config));
        assert_true(config.attention.far_scale == files[i].far_scale);
    }
}

/* What a form does not use is written all the same, so it has to be what can be read. */
static void expect_unused_fields_to_survive(const char *path) {
    psk_model_config config, again;
    PSK_TEST_OK(psk_model_config_preset("tiny", &config));
    config.attention.mechanism = PSK_SOFTMAX;
    config.attention.block_size = 0;
    config.attention.sketch_size = 1 << 30;
    PSK_TEST_OK(psk_model_config_write(path, &config));
    PSK_TEST_OK(psk_model_config_read(path, &again));
    assert_int_equal(again.attention.block_size, 0);
    assert_int_equal(again.attention.sketch_size, 1 << 30);
    config.attention.block_size = -5;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "block_size is -5");
    config.attention.block_size = 1;
    config.attention.degree = -2;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "degree is -2");
    config.attention.degree = 4;
    config.attention.sketch = (psk_sketch)9;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "sketch 9");
    config.attention.sketch = PSK_SKETCH_RANDOM;
    config.attention.local = (psk_local)9;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "local 9");
    config.attention.local = PSK_LOCAL_NONE;
    config.attention.far_scale = -1;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "far_scale is -1");
    config.attention.far_scale = NAN;
    PSK_TEST_FAILS(psk_model_config_write(path, &config), PSK_ERROR_ARGUMENT, "far_scale is nan");
}

static void test_configs_are_checked(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *path = in(folder, "config.json");
    psk_model_config config;
#define SIZES "\"vocab_size\": 9, \"n_positions\": 4, \"n_embd\": 8, \"n_layer\": 1, \"n_head\": "
#define GOOD  "\"attention\": \"softmax\", " SIZES
    const struct {
        const char *text, *parts[3];
    } wrong[] = {
        {"{" GOOD "2, \"n_heads\": 3}", {"n_heads", "not known"}},
        {"{" GOOD "3}", {"n_head is 3", "n_embd (8)"}},
        {"{" GOOD "4, \"n_kv_head\": 3}", {"n_kv_head is 3", "n_head (4)"}},
        {"{" GOOD "0}", {"n_head is 0", "1 ... 4096"}},
        {"{" GOOD "\"2\"}", {"n_head"}},
        {"{\"attention\": \"softmax\"}", {"vocab_size", "missing"}},
        {"{\"vocab_size\": 7}", {"attention", "missing"}},
        {"{\"attention\": \"linear\"}", {"linear", "softmax polynomial polysketch performer"}},
        {"{\"attention\": \"polysketch\", \"sketch\": \"random\"}", {"local", "missing"}},
        {"{" GOOD "2, \"far_gain\": true}", {"far_gain is true", "attention is softmax"}},
        {"{" GOOD "2, \"far_gain\": 1}", {"far_gain", "true or false"}},
        {"{\"attention\": \"polynomial\", \"degree\": 4, \"qk_norm\": true, " SIZES "2}",
         {"qk_norm is true", "attention is polynomial"}},
        {"{" GOOD "2, \"local_only\": true}", {"local\"", "missing"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"window\"}", {"block_size", "missing"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"window\", \"block_size\": 0}", {"block_size is 0"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"none\", \"block_size\": 4}", {"local_only", "local is none"}},
        {"{" GOOD "2, \"local_only\": 1}", {"local_only"}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        PSK_TEST_OK(psk_write_file(path, wrong[i].text, strlen(wrong[i].text)));
        const char *second = wrong[i].parts[1] != NULL ? wrong[i].parts[1] : "";
        PSK_TEST_FAILS(psk_model_config_read(path, &config), PSK_ERROR_FORMAT, path, wrong[i].parts[0], second);
    }
    const char *good = "{" GOOD "2, \"model_type\": \"x\", \"n_kv_head\": 1}";
    PSK_TEST_OK(psk_write_file(path, good, strlen(good)));
    PSK_TEST_OK(psk_model_config_read(path, &config));
    assert_int_equal(psk_config_kv_heads(&config), 1);
    assert_false(config.far_gain);
    assert_true(config.position_scale == 1); /* as before there was this key */
    expect_local_only_to_be_said(path);
    expect_unwritten_far_scale(path);
    expect_unused_fields_to_survive(path);
    config = fixture_config(7);
    config.attention.degree = 6; /* p/2 = 3 is no power of two */
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "degree", "6");
    config.attention.degree = 4;
    config.position_scale = NAN;
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "position_scale is nan");
    config.position_scale = 0;
    config.attention.direction = PSK_BIDIRECTIONAL;
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "causal");
    psk_free(path);
    psk_test_remove_folder(folder);
}

/* h = 64, r = 32, p = 4, windows of 256. */
static void check_default_far_scale(psk_model_config config) {
    const float even = 3.0f * 32 / (64 * 64);
    const int64_t context = config.n_positions;
    psk_attention_config *const attention = &config.attention;
    assert_int_equal(context, 1024); /* 128.5 far keys and 384.5 near ones */
    assert_true(attention->far_scale == even);
    config.n_positions = 16383; /* 7807.5 and 384.5 */
    assert_true(fabsf(psk_default_far_scale(&config) / (even * 10 * 384.5f / 7807.5f) - 1) < 1e-6f);
    attention->local = PSK_LOCAL_BLOCK; /* 8063.5 and 128.5 */
    assert_true(fabsf(psk_default_far_scale(&config) / (even * 10 * 128.5f / 8063.5f) - 1) < 1e-6f);
    config.n_positions = 1;
    assert_true(psk_default_far_scale(&config) == even);
    config.n_positions = context;
    attention->sketch = PSK_SKETCH_RANDOM;
    assert_true(psk_default_far_scale(&config) == even);
    attention->degree = 8;
    config.n_embd = 4 * config.n_head;
    assert_true(psk_default_far_scale(&config) == 105.0f * 32 / 256);
    attention->local = PSK_LOCAL_NONE;
    assert_true(psk_default_far_scale(&config) == 1.0f);
    attention->sketch = PSK_SKETCH_LEARNED;
    attention->local = PSK_LOCAL_BLOCK;
    attention->degree = 2;
    config.n_embd = 64 * config.n_head;
    assert_true(psk_default_far_scale(&config) == 2.0f / 40);
}

static void test_presets(void **state) {
    (void)state;
    psk_model_config config;
    int64_t count = 0;
    for (; psk_model_preset_name(count) != NULL; count++) {
        psk_params params;
        PSK_TEST_OK(psk_model_config_preset(psk_model_preset_name(count), &config));
        PSK_TEST_OK(psk_params_create(&config, &params));
        printf("  %-12s %7.2f M floats: %s\n", psk_model_preset_name(count), (double)params.floats / 1e6,
               psk_model_preset_description(count));
        psk_params_free(&params);
    }
    assert_true(count >= 6);
    assert_null(psk_model_preset_description(count));
    PSK_TEST_OK(psk_model_config_preset("gpt2-medium", &config));
    assert_int_equal(config.n_layer, 24);
    assert_int_equal(config.n_head, 16);
    assert_int_equal(config.n_embd, 1024);
    assert_true(config.position_scale == 0);
    PSK_TEST_FAILS(psk_model_config_preset("gpt3", &config), PSK_ERROR_ARGUMENT, "gpt3", "gpt2-large");
    check_default_far_scale(config);
}

typedef struct files_argument {
    const fixture *f;
    const char *folder;
} files_argument;

static psk_status save_and_load(void *argument) {
    const files_argument *a = argument;
    psk_model *loaded;
    PSK_TRY(psk_model_save(a->f->model, a->folder));
    PSK_TRY(psk_model_load(a->f->device, a->folder, &loaded));
    psk_model_free(loaded);
    return PSK_OK;
}

static void test_files_out_of_memory(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    fixture f = fixture_begin(0, &config, 1, 1);
    char *folder = psk_test_folder();
    files_argument argument = {&f, folder};
    assert_true(psk_test_allocation_failures(save_and_load, &argument) > 5);
    psk_test_remove_folder(folder);
    fixture_end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saving_and_loading_changes_no_bit),
        cmocka_unit_test(test_wrong_weights_are_named),
        cmocka_unit_test(test_configs_are_checked),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_files_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
