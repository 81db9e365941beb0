/* test_golden [DIR]: every golden file of a folder on every device. Golden files hold inputs, outputs and all
 * gradients, computed in float64 from the definitions. A line for each file, device and quantity; exit code 1 if any
 * fails. */
#include "golden.h"
#include "support.h"

#include "attention/attn_performer.h"
#include "attention/attn_sketch.h"
#include "base/files.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 2

/* One file on one device, and all memory taken for it. */
typedef struct golden {
    const char *path;
    psk_safetensors *file;
    psk_device *device;
    float *taken[256];
    int64_t count;
    int failures;
} golden;

/* A test without memory, or with a file that cannot be read, is over. */
static void need(psk_status status, const char *path) {
    if (status == PSK_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", path, psk_status_name(status), psk_error_message());
    exit(EXIT_FAILURE);
}

static float *take(golden *g, int64_t n) {
    void *block;
    need(psk_alloc((size_t)n * sizeof(float), "golden", &block), g->path);
    float *floats = block;
    for (int64_t i = 0; i < n; i++)
        floats[i] = NAN;
    if (g->count == (int64_t)(sizeof g->taken / sizeof g->taken[0])) {
        fprintf(stderr, "%s: too many tensors\n", g->path);
        exit(EXIT_FAILURE);
    }
    g->taken[g->count++] = floats;
    return floats;
}

static int64_t count_of(const golden *g, const char *name) {
    const psk_tensor_view *view = psk_safetensors_find(g->file, name);
    return view != NULL ? view->count : 0;
}

static int64_t size_of(const golden *g, const char *name, int64_t dim) {
    const psk_tensor_view *view = psk_safetensors_find(g->file, name);
    return view != NULL && dim < view->dims ? view->shape[dim] : 0;
}

/* NULL if the file has no such tensor. */
static float *load(golden *g, const char *name) {
    const psk_tensor_view *view = psk_safetensors_find(g->file, name);
    if (view == NULL)
        return NULL;
    float *x = take(g, view->count);
    need(psk_safetensors_read_floats(g->file, name, view->dims, view->shape, x), g->path);
    return x;
}

/* As long as the tensor of that name; NULL if the file has none. */
static float *room_for(golden *g, const char *name) {
    return count_of(g, name) > 0 ? take(g, count_of(g, name)) : NULL;
}

static double metadata(const golden *g, const char *key, double otherwise) {
    const char *text = psk_safetensors_metadata(g->file, key);
    return text != NULL ? strtod(text, NULL) : otherwise;
}

int golden_report(const char *device_name, const char *path, const char *quantity, double error, double limit) {
    const char *slash = strrchr(path, '/');
    const bool pass = error <= limit; /* false for NaN */
    printf("%-9s  %-48s  %-28s  %9.2e  %s\n", device_name, slash != NULL ? slash + 1 : path, quantity, error,
           pass ? "PASS" : "FAIL");
    return pass ? 0 : 1;
}

static void compare(golden *g, const char *quantity, const float *got, const float *want, int64_t n) {
    if (want != NULL)
        g->failures +=
            golden_report(g->device->name, g->path, quantity, psk_test_relative_rms(got, want, n), GOLDEN_LIMIT);
}

static void compare_file(golden *g, const char *name, const float *got) {
    compare(g, name, got, load(g, name), count_of(g, name));
}

/* States: the files have the unpacked r x r, we store e(i,j) for i <= j. */
typedef enum { AS_VALUE, AS_GRADIENT } packing; /* a stored pair stands for both places: its gradient is the sum */

static float *load_packed(golden *g, const char *name, packing form) {
    const float *x = load(g, name);
    if (x == NULL)
        return NULL;
    const int64_t r = size_of(g, name, 2), n = size_of(g, name, 4), groups = size_of(g, name, 0) * size_of(g, name, 1);
    float *packed = take(g, groups * r * (r + 1) / 2 * n), *next = packed;
    for (int64_t group = 0; group < groups; group++)
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = i; j < r; j++)
                for (int64_t c = 0; c < n; c++) {
                    const float ij = x[((group * r + i) * r + j) * n + c], ji = x[((group * r + j) * r + i) * n + c];
                    *next++ = form == AS_VALUE || i == j ? ij : ij + ji;
                }
    return packed;
}

static int64_t packed_count(const golden *g, const char *name) {
    const int64_t r = size_of(g, name, 2);
    return size_of(g, name, 0) * size_of(g, name, 1) * r * (r + 1) / 2 * size_of(g, name, 4);
}

/* attention_* */

static bool attention_config(const golden *g, psk_attention_config *config) {
    const char *mechanism = psk_safetensors_metadata(g->file, "mechanism");
    const char *causal = psk_safetensors_metadata(g->file, "causal");
    if (mechanism == NULL || causal == NULL)
        return false;
    *config = psk_attention_config_default();
    config->direction = strcmp(causal, "true") == 0 ? PSK_CAUSAL : PSK_BIDIRECTIONAL;
    config->degree = (int64_t)metadata(g, "degree", 4);
    config->denominator_bias = (float)metadata(g, "denominator_bias", 1);
    config->block_size = (int64_t)metadata(g, "block_size", 16);
    config->local = strstr(mechanism, "window")  ? PSK_LOCAL_WINDOW
                    : strstr(mechanism, "local") ? PSK_LOCAL_BLOCK
                                                 : PSK_LOCAL_NONE;
    if (strstr(mechanism, "softmax"))
        config->mechanism = PSK_SOFTMAX;
    else if (strstr(mechanism, "polynomial"))
        config->mechanism = PSK_POLYNOMIAL;
    else if (strstr(mechanism, "performer"))
        config->mechanism = PSK_PERFORMER;
    else if (config->local != PSK_LOCAL_NONE || strstr(mechanism, "squared"))
        config->mechanism = PSK_POLYSKETCH;
    else
        return false;
    config->sketch_size = config->mechanism == PSK_PERFORMER ? size_of(g, "proj", 0) : size_of(g, "a", 3);
    return true;
}

static int64_t *load_boundaries(golden *g, const char *name) {
    const psk_tensor_view *view = psk_safetensors_find(g->file, name);
    if (view == NULL)
        return NULL;
    int64_t *boundaries = (int64_t *)(void *)take(g, 2 * view->count);
    for (int64_t i = 0; i < view->count; i++) {
        int32_t value;
        memcpy(&value, (const char *)view->data + (size_t)i * sizeof value, sizeof value);
        boundaries[i] = value;
    }
    return boundaries;
}

/* The features of performer stand where the sketches are. */
static void performer_forward(golden *g, const psk_attention_shape *s, psk_attention_tensors *t, const float *proj) {
    const int64_t queries = s->B * s->H * s->Nq, keys = s->B * s->Hkv * s->Nk;
    float *a = take(g, queries * s->r), *b = take(g, keys * s->r);
    need(psk_performer_features_forward(g->device, s->h, s->r, queries, t->q, proj, a), g->path);
    need(psk_performer_features_forward(g->device, s->h, s->r, keys, t->k, proj, b), g->path);
    t->a = a;
    t->b = b;
    t->da = take(g, queries * s->r);
    t->db = take(g, keys * s->r);
}

static void performer_backward(golden *g, const psk_attention_shape *s, const psk_attention_tensors *t,
                               const float *proj) {
    const psk_performer_backward_args queries = {.h = s->h,
                                                 .m = s->r,
                                                 .rows = s->B * s->H * s->Nq,
                                                 .x = t->q,
                                                 .projection = proj,
                                                 .f = t->a,
                                                 .df = t->da,
                                                 .dx = t->dq};
    psk_performer_backward_args keys = queries;
    keys.rows = s->B * s->Hkv * s->Nk;
    keys.x = t->k;
    keys.f = t->b;
    keys.df = t->db;
    keys.dx = t->dk;
    need(psk_performer_features_backward(g->device, &queries), g->path);
    need(psk_performer_features_backward(g->device, &keys), g->path);
}

static void run_attention(golden *g, const psk_attention_config *config) {
    const int64_t d = size_of(g, "out", 3), h = size_of(g, "q", 3);
    const psk_attention_shape shape = {.B = size_of(g, "out", 0),
                                       .H = size_of(g, "out", 1),
                                       .Hkv = size_of(g, "v", 1),
                                       .Nq = size_of(g, "out", 2),
                                       .Nk = size_of(g, "v", 2),
                                       .h = h > 0 ? h : 1, /* squared files have no q */
                                       .d = d,
                                       .r = config->sketch_size};
    const bool state = count_of(g, "state") > 0 || count_of(g, "state1") > 0;
    const int64_t m = psk_attention_state_rows(config), state_floats = shape.B * shape.Hkv * m * (d + 1);
    psk_attention_tensors t = {.q = load(g, "q"),
                               .k = load(g, "k"),
                               .v = load(g, "v"),
                               .a = load(g, "a"),
                               .b = load(g, "b"),
                               .state0 = load_packed(g, "state0", AS_VALUE),
                               .cu_seqlens = load_boundaries(g, "cu_seqlens"),
                               .documents = count_of(g, "cu_seqlens") - 1,
                               .out = room_for(g, "out"),
                               .normaliser = take(g, shape.B * shape.H * shape.Nq),
                               .state1 = state ? take(g, state_floats) : NULL,
                               .dout = load(g, "dout"),
                               .dstate1 = load_packed(g, "dstate1", AS_GRADIENT),
                               .dq = room_for(g, "dq"),
                               .dk = room_for(g, "dk"),
                               .dv = room_for(g, "dv"),
                               .da = room_for(g, "da"),
                               .db = room_for(g, "db"),
                               .dstate0 = count_of(g, "dstate0") > 0 ? take(g, state_floats) : NULL};
    const float *proj = load(g, "proj");
    psk_attention *attention;
    need(psk_attention_create(g->device, config, &shape, &attention), g->path);
    if (proj != NULL)
        performer_forward(g, &shape, &t, proj);
    need(psk_attention_forward(attention, &t), g->path);
    need(psk_attention_backward(attention, &t), g->path);
    if (proj != NULL)
        performer_backward(g, &shape, &t, proj);
    psk_attention_free(attention);

    compare_file(g, "out", t.out);
    compare(g, "state", t.state1, load_packed(g, "state", AS_VALUE), packed_count(g, "state"));
    compare(g, "state1", t.state1, load_packed(g, "state1", AS_VALUE), packed_count(g, "state1"));
    compare_file(g, "dq", t.dq);
    compare_file(g, "dk", t.dk);
    compare_file(g, "dv", t.dv);
    compare_file(g, "da", proj == NULL ? t.da : NULL);
    compare_file(g, "db", proj == NULL ? t.db : NULL);
    compare(g, "dstate0", t.dstate0, load_packed(g, "dstate0", AS_GRADIENT), packed_count(g, "dstate0"));
}

static void attention_file(golden *g) {
    psk_attention_config config;
    if (!attention_config(g, &config)) {
        printf("%s: no mechanism that this program knows  FAIL\n", g->path);
        g->failures++;
        return;
    }
    run_attention(g, &config);
}

/* sketch_* */

/* Loads name and its gradient's room for every weight of the learned networks. */
static void load_nets(golden *g, psk_sketch_params *params, psk_sketch_grads *grads) {
    for (int net = 0; net < 2; net++)
        for (int level = 0; level < PSK_SKETCH_LEVELS; level++) {
            const struct {
                const char *name;
                const float **weight;
                float **gradient;
            } parts[] = {{"norm.weight", &params->net[net][level].norm_weight, &grads->net[net][level].norm_weight},
                         {"norm.bias", &params->net[net][level].norm_bias, &grads->net[net][level].norm_bias},
                         {"up.weight", &params->net[net][level].up, &grads->net[net][level].up},
                         {"down.weight", &params->net[net][level].down, &grads->net[net][level].down}};
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
                char name[64];
                snprintf(name, sizeof name, "sketch.%c.%d.%s", "ab"[net], level, parts[i].name);
                *parts[i].weight = load(g, name);
                *parts[i].gradient = room_for(g, name);
                memset(*parts[i].gradient, 0, (size_t)count_of(g, name) * sizeof(float));
            }
        }
}

static void compare_nets(golden *g, const psk_sketch_grads *grads) {
    for (int net = 0; net < 2; net++)
        for (int level = 0; level < PSK_SKETCH_LEVELS; level++) {
            const struct {
                const char *name;
                const float *gradient;
            } parts[] = {{"norm.weight", grads->net[net][level].norm_weight},
                         {"norm.bias", grads->net[net][level].norm_bias},
                         {"up.weight", grads->net[net][level].up},
                         {"down.weight", grads->net[net][level].down}};
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
                char name[64];
                snprintf(name, sizeof name, "dsketch.%c.%d.%s", "ab"[net], level, parts[i].name);
                compare_file(g, name, parts[i].gradient);
            }
        }
}

static void sketch_file(golden *g) {
    const bool learned = psk_safetensors_metadata(g->file, "degree") == NULL;
    psk_attention_config config = psk_attention_config_default();
    config.sketch = learned ? PSK_SKETCH_LEARNED : PSK_SKETCH_RANDOM;
    config.degree = (int64_t)metadata(g, "degree", 4);
    config.sketch_size = (int64_t)metadata(g, "sketch_size", 0);
    const int64_t h = size_of(g, "x", 3), rows = count_of(g, "x") / h;
    psk_sketch_params params = {0};
    psk_sketch_grads grads = {0};
    for (int64_t j = 0; j < psk_sketch_matrix_count(&config); j++) {
        char name[16];
        snprintf(name, sizeof name, "g.%d", (int)j);
        params.g[j] = load(g, name);
    }
    if (learned)
        load_nets(g, &params, &grads);
    const float *x = load(g, "x"), *dout = load(g, "dout");
    float *out = room_for(g, "out"), *dx = room_for(g, "dx"), *workspace = take(g, psk_sketch_workspace(&config, h));
    need(psk_sketch_check(&config, h), g->path);
    need(psk_sketch_forward(g->device, &config, h, rows, x, &params, out, workspace), g->path);
    need(psk_sketch_backward(g->device, &config,
                             &(psk_sketch_backward_args){.h = h,
                                                         .rows = rows,
                                                         .x = x,
                                                         .s = out,
                                                         .ds = dout,
                                                         .params = &params,
                                                         .dx = dx,
                                                         .dx_write = PSK_SET,
                                                         .grads = &grads,
                                                         .workspace = workspace}),
         g->path);
    compare_file(g, "out", out);
    compare_file(g, "dx", dx);
    if (learned)
        compare_nets(g, &grads);
}

/* The folder */

static int on_device(const char *path, const char *device_name, void (*run)(golden *g)) {
    golden g = {.path = path};
    need(psk_safetensors_open(path, &g.file), path);
    need(psk_device_create(device_name, THREADS, &g.device), path);
    run(&g);
    for (int64_t i = 0; i < g.count; i++)
        psk_free(g.taken[i]);
    psk_device_free(g.device);
    psk_safetensors_close(g.file);
    return g.failures;
}

static bool begins_with(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int golden_file(const char *path, const char *name, const char *device_name) {
    if (begins_with(name, "attention_"))
        return on_device(path, device_name, attention_file);
    if (begins_with(name, "sketch_"))
        return on_device(path, device_name, sketch_file);
    if (begins_with(name, "model_"))
        return golden_model_file(path, device_name);
    printf("%-9s  %s: a kind of file that this program does not know  FAIL\n", device_name, name);
    return 1;
}

/* Every file of the folder; returns the number of failures. */
static int64_t golden_folder(const char *folder, char **names, int64_t count, const char *device_name, int64_t *files) {
    const char *ending = ".safetensors";
    int64_t failures = 0;
    *files = 0;
    for (int64_t i = 0; i < count; i++) {
        const size_t length = strlen(names[i]);
        if (length < strlen(ending) || strcmp(names[i] + length - strlen(ending), ending) != 0)
            continue;
        char *path;
        need(psk_join_path(folder, names[i], &path), folder);
        failures += golden_file(path, names[i], device_name);
        psk_free(path);
        (*files)++;
    }
    return failures;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name, *fused; /* PSK_CPU_FUSED: attention as one operation, or composed of the others */
    } devices[] = {{"reference", "on"}, {"cpu", "on"}, {"cpu", "off"}};
    const char *folder = argc > 1 ? argv[1] : PSK_GOLDEN_DIR;
    char **names;
    int64_t count, files = 0, failures = 0;
    need(psk_list_folder(folder, &names, &count), folder);
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        printf("device %s, PSK_CPU_FUSED=%s\n", devices[i].name, devices[i].fused);
        setenv("PSK_CPU_FUSED", devices[i].fused, 1);
        failures += golden_folder(folder, names, count, devices[i].name, &files);
    }
    psk_free_names(names, count);
    printf("%lld files, %lld failures\n", (long long)files, (long long)failures);
    return files > 0 && failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
