/* polysketch: language models whose attention costs the same per token at any context length.
 *
 * PolySketchFormer (Kacham, Mirrokni, Zhong; ICML 2024; arXiv 2310.01655) as a C library. This header is the manual and
 * the only one installed. Simple things come first: status, devices, attention on its own, then models, data, training,
 * generation.
 *
 * Rules of the whole library
 *   - A function that can fail returns psk_status; psk_error_message() then says what, where and what to do.
 *   - Nothing here prints, exits or aborts. The libraries below may (OpenMP, oneDNN, jansson, SentencePiece) where the
 *     system gives them no more threads or memory.
 *   - create/free pairs; every free accepts NULL. Buffers belong to the caller unless a line says otherwise.
 *   - Tensors are float32, row-major, contiguous.
 *   - B batch, N tokens, H heads, h head size, d value size, r sketch size, b block size.
 *   - A child after fork() computes with one thread, or not at all, if its parent has computed with more: OpenMP's
 *     threads are not its own, and it would wait for them. Fork before the first computation, or exec.
 *   - Signals to a thread may wait until the matrix product that it computes has ended (milliseconds).
 *   - An object is used by one thread at a time; two objects may be used by two threads, if they are on two devices.
 */
#ifndef POLYSKETCH_H
#define POLYSKETCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PSK_API __attribute__((visibility("default")))
#else
#define PSK_API
#endif

#define PSK_VERSION_STRING "0.1.0"

/* "0.1.0", of the library that is linked (PSK_VERSION_STRING is that of the header). A literal, not to be freed. */
PSK_API const char *psk_version(void);

/* ------------------------------------------------------------------------------------------------------------ status
 */

/* Values are pinned: they will not change between versions. */
typedef enum psk_status {
    PSK_OK = 0,
    PSK_ERROR_ARGUMENT = 1,    /* a value given by the caller is out of range */
    PSK_ERROR_MEMORY = 2,      /* out of memory */
    PSK_ERROR_FILE = 3,        /* the system refused: not found, no permission, disk full */
    PSK_ERROR_FORMAT = 4,      /* a file is damaged, foreign, or of another version */
    PSK_ERROR_UNSUPPORTED = 5, /* a combination that does not exist, or a part that was not built */
    PSK_ERROR_NUMERIC = 6,     /* a loss, gradient or weight is not finite */
    PSK_ERROR_INTERRUPTED = 7, /* a callback asked to stop; state was saved where the function says so */
    PSK_ERROR_INTERNAL = 8     /* a fault of ours: please report it */
} psk_status;

/* "PSK_ERROR_FORMAT", ... A literal. */
PSK_API const char *psk_status_name(psk_status status);

/* What went wrong last in this thread, "" if nothing did. Valid until the next failing call of the thread; not to be
 * freed. */
PSK_API const char *psk_error_message(void);

/* Releases a buffer that a function of the library handed over (its docstring says so); accepts NULL. */
PSK_API void psk_buffer_free(void *buffer);

/* ----------------------------------------------------------------------------------------------------------- devices
 */

typedef struct psk_device psk_device;

/* name: "cpu", "reference" (plain loops in double precision: the executable definition, slow), or "auto" (the best
 * there is). threads: 0 means as many as the process may use (OMP_NUM_THREADS, the CPU mask). Errors: ARGUMENT, MEMORY,
 * UNSUPPORTED. */
PSK_API psk_status psk_device_create(const char *name, int threads, psk_device **out);
PSK_API void psk_device_free(psk_device *device);
PSK_API const char *psk_device_name(const psk_device *device); /* valid while the device lives */
PSK_API const char *
psk_device_description(const psk_device *device); /* one line for people: instruction set, libraries, threads */
PSK_API int psk_device_threads(const psk_device *device);

/* How products of matrices are computed. BF16: their operands rounded to bfloat16, where that is faster; sums, weights,
 * optimiser, attention's state and normaliser, softmax, loss and everything in memory stay in float32. */
typedef enum psk_precision { PSK_PRECISION_F32 = 0, PSK_PRECISION_BF16 = 1 } psk_precision;

/* "float32" | "bfloat16"; NULL for a value that is neither. Literals. */
PSK_API const char *psk_precision_name(psk_precision precision);

/* The precision of everything that is computed on the device from now on; float32 at first. Errors of bfloat16:
 * docs/numerics.md. UNSUPPORTED, and nothing changes, on a device without instructions for it (the description of one
 * that has them says "bfloat16"). */
PSK_API psk_status psk_device_set_precision(psk_device *device, psk_precision precision);
PSK_API psk_precision psk_device_precision(const psk_device *device);

/* --------------------------------------------------------------------------------------------------------- attention
 */

typedef enum psk_mechanism { PSK_SOFTMAX, PSK_POLYNOMIAL, PSK_POLYSKETCH, PSK_PERFORMER } psk_mechanism;
typedef enum psk_sketch {
    PSK_SKETCH_RANDOM,
    PSK_SKETCH_RANDOM_HADAMARD,
    PSK_SKETCH_LEARNED,
    PSK_SKETCH_LEARNED_LINEAR
} psk_sketch;
typedef enum psk_local { PSK_LOCAL_NONE, PSK_LOCAL_BLOCK, PSK_LOCAL_WINDOW } psk_local;
typedef enum psk_direction { PSK_CAUSAL, PSK_BIDIRECTIONAL } psk_direction;

/* clang-format off */
/* What attention computes. With weights w_ij >= 0:   o_i = sum_j w_ij v_j / (beta + sum_j w_ij)
 *   softmax      w_ij = exp(<q_i,k_j> / sqrt(h)), beta = 0
 *   polynomial   w_ij = <q_i,k_j>^p (paper, section 2.1)
 *   polysketch   w_ij = far_scale <a_i,b_j>^2, a and b the sketches of q and k (paper, sections 2.2-2.3); with a local
 *                part <q_i,k_j>^p for the keys of the query's own block of b tokens (block; paper, section 3.2) or of
 *                its own block and the one before (window)
 *   performer    w_ij = <f(q_i), f(k_j)>, FAVOR+ positive features, beta = 0
 * Softmax and polynomial with local_only: j runs over the keys of the local part alone, for the others w_ij = 0. Blocks
 * are counted from the first key of a document; a window is of b + 1 to 2 b keys, b or fewer in the first block. Time
 * is linear in N, and a sequence that is continued needs the tail alone. */
/* clang-format on */
typedef struct psk_attention_config {
    psk_mechanism mechanism;
    psk_sketch sketch;   /* polysketch: how a and b come from q and k (used by models; attention alone takes a and b) */
    psk_local local;     /* polysketch; softmax and polynomial with local_only */
    int64_t degree;      /* p, even, >= 2: polynomial, polysketch's local part; random sketch: a power of two >= 4 */
    int64_t sketch_size; /* r: polysketch; number m of random features: performer */
    int64_t block_size;  /* b: the local part, or the chunk where there is none */
    float denominator_bias; /* beta of polynomial and polysketch */
    float far_scale;        /* factor on all sketched weights */
    psk_direction direction;
    int local_only; /* softmax, polynomial: 1: only the keys of `local` (block or window) are seen; 0: all, whatever
                       `local` says */
} psk_attention_config;

/* softmax | polynomial | polysketch | performer and so on, as in config.json; NULL for a value that is none. Literals.
 */
PSK_API const char *psk_mechanism_name(psk_mechanism mechanism);
PSK_API const char *psk_sketch_name(psk_sketch sketch);
PSK_API const char *psk_local_name(psk_local local);

/* polysketch, learned_linear, window, degree 4, r 32, b 256, beta 1, far_scale 1 (a new model: psk_default_far_scale),
 * causal, local_only 0. */
PSK_API psk_attention_config psk_attention_config_default(void);

/* Sizes of one attention call. Queries are the last Nq of the Nk keys when causal: Nk > Nq means that the first Nk - Nq
 * keys precede the queries (a cache, or the tail of psk_attention_tail). H is a multiple of Hkv; query heads j H/Hkv
 * ... (j+1) H/Hkv - 1 use key/value head j. All sizes >= 1, except r, which is 0 where there is no sketch (for
 * performer it is the number m of features). */
typedef struct psk_attention_shape {
    int64_t B, H, Hkv, Nq, Nk, h, d, r;
} psk_attention_shape;

/* The tensors of one call. Forward reads the first group and writes the second; backward reads both and `dout`, and
 * writes the third. NULL where the mechanism has no such tensor. */
typedef struct psk_attention_tensors {
    /* inputs */
    const float *q; /* B x H x Nq x h     softmax, polynomial, polysketch with a local part */
    const float *k; /* B x Hkv x Nk x h */
    const float *v; /* B x Hkv x Nk x d */
    const float *a; /* B x H x Nq x r     polysketch: sketched q; performer: features of q */
    const float *b; /* B x Hkv x Nk x r   polysketch: sketched k; performer: features of k */
    const float
        *state0; /* B x Hkv x m x (d+1): keys before k; m = r (r+1) / 2 for polysketch, r for performer. NULL: none */
    const int64_t *cu_seqlens; /* documents packed in the rows: boundaries in the flat index 0 ... B Nq, strictly
                                  increasing, first 0, last B Nq, every multiple of Nq among them; needs Nq == Nk and no
                                  state. NULL: each row is one document */
    int64_t documents;         /* number of documents; cu_seqlens has one more entry */
    /* outputs of forward */
    float *out;        /* B x H x Nq x d */
    float *normaliser; /* B x H x Nq: beta + sum of weights; softmax: log of the sum. Backward needs it */
    float *state1;     /* as state0: everything except the tail. NULL: not wanted */
    /* backward */
    const float *dout;             /* as out */
    const float *dstate1;          /* as state1, NULL: 0 */
    float *dq, *dk, *dv, *da, *db; /* as their tensors; written (=) */
    float *dstate0;                /* as state0, NULL: not wanted */
} psk_attention_tensors;

/* The packed state. z[e(i,j)] with i <= j holds sum over keys of b_i b_j [v, 1] (factor 1 on the key side). A gradient
 * of a packed pair i < j is that of the one stored number. */

/* How many of Nk keys are not in state1 but must be given again, as the first keys of the next call (with their k, v
 * and b): softmax, polynomial: Nk, unless local_only; performer and no local part: 0; block: Nk mod b; window: Nk if
 * Nk < b, else b + Nk mod b. With local_only there is no state, and the other keys are not needed any more. config: one
 * that psk_attention_create accepts */
PSK_API int64_t psk_attention_tail(const psk_attention_config *config, int64_t Nk);

/* Whether any weight of Nk keys without a state before them depends on a and b. 0 for softmax and polynomial, and for
 * polysketch with a local part if all keys are in it: Nk <= b (block), 2 b (window). Then a and b may hold anything
 * finite. */
PSK_API int psk_attention_reads_ab(const psk_attention_config *config, int64_t Nk);

/* One attention of fixed configuration and sizes with its workspace: create once, call often; nothing of ours is
 * allocated in forward or backward. The device must outlive it. Errors: ARGUMENT naming the field. */
typedef struct psk_attention psk_attention;
PSK_API psk_status psk_attention_create(psk_device *device, const psk_attention_config *config,
                                        const psk_attention_shape *shape, psk_attention **out);
PSK_API void psk_attention_free(psk_attention *attention);
PSK_API int64_t psk_attention_bytes(const psk_attention *attention); /* of workspace */

/* Errors: ARGUMENT naming the tensor that is missing or the boundary that is wrong, before anything is written. */
PSK_API psk_status psk_attention_forward(psk_attention *attention, const psk_attention_tensors *tensors);
PSK_API psk_status psk_attention_backward(psk_attention *attention, const psk_attention_tensors *tensors);

/* ------------------------------------------------------------------------------------------------------------ models
 */

/* A GPT-2-style decoder (docs/mathematics.md): token embedding + position_scale x sinusoidal positions; per layer
 * attention on rope(q), rope(k), v and a GEGLU MLP, both on LayerNormed input, both residual; final LayerNorm, logits
 * by the transposed embedding plus lm_head.bias. */
typedef struct psk_model_config {
    int64_t vocab_size;   /* V */
    int64_t n_positions;  /* context the model was trained for; longer ones run, positions extrapolate */
    int64_t n_embd;       /* D */
    int64_t n_layer;      /* L */
    int64_t n_head;       /* H; h = D / H */
    int64_t n_kv_head;    /* Hkv; 0 means n_head */
    float position_scale; /* factor on the sinusoidal positions; 0: RoPE alone (presets), 1: as in the paper */
    int far_gain;         /* polysketch: sketched weights of head e times exp(g_e), g trained, 0 at first */
    int qk_norm;          /* softmax: of LN(q) and LN(k), the LayerNorm that polynomial attention has */
    psk_attention_config attention;
} psk_model_config;

/* A named starting point: gpt2-small, gpt2-medium, gpt2-large, and small ones for a CPU: tiny, mini, small
 * (psk_model_preset_name lists them with a line of description). Attention is the default. Errors: ARGUMENT listing the
 * names. */
PSK_API psk_status psk_model_config_preset(const char *name, psk_model_config *config);
PSK_API const char *psk_model_preset_name(int64_t index);        /* NULL past the last; a literal */
PSK_API const char *psk_model_preset_description(int64_t index); /* NULL past the last; a literal */

/* far_scale with which a new model starts best: far keys are to weigh neither nothing nor everything. With `even` an
 * unrelated far key weighs on the average what an unrelated near key does, for LayerNormed heads of h numbers: near
 * keys weigh E <q,k>^p = (p-1)!! h^(p/2); far ones, at far_scale 1 and as the sketches start, h^p / r (random), h^4 / r
 * (learned_linear), r (learned). Of learned it is even / 40, since the first steps change its far weights most. Where a
 * token of a context of n_positions has on the average more than 10 times as many far keys as near ones, it is at most
 * what lets them together weigh 10 times as much. Without a local part: 1, there is nothing to compare with. The other
 * fields of config are as psk_model_config_check wants them.
 * (docs/mathematics.md, how loud far keys start) */
PSK_API float psk_default_far_scale(const psk_model_config *config);

/* config.json <-> config. Unknown keys are refused by name, except the ones a Hugging Face config carries (model_type,
 * ...). */
PSK_API psk_status psk_model_config_read(const char *path, psk_model_config *config);
PSK_API psk_status psk_model_config_write(const char *path, const psk_model_config *config);
PSK_API psk_status
psk_model_config_check(const psk_model_config *config); /* ARGUMENT naming the field, its value and its range */

typedef struct psk_model psk_model;

/* New weights, a pure function of (config, seed): GPT-2's N(0, 0.02^2) with residual projections divided by
 * sqrt(2 L), token embeddings N(0, 0.1^2) where sinusoids are added to them (position_scale > 0), sketches so that
 * <s,s> starts near r (docs/mathematics.md). The device must outlive the model. Errors: ARGUMENT naming the field of
 * config, MEMORY. */
PSK_API psk_status psk_model_create(psk_device *device, const psk_model_config *config, uint64_t seed, psk_model **out);

/* A model folder: config.json, model.safetensors. Save is atomic file by file. Load checks every name and shape.
 * Errors: FILE, FORMAT naming file and tensor or key, MEMORY. */
PSK_API psk_status psk_model_load(psk_device *device, const char *folder, psk_model **out);
PSK_API psk_status psk_model_save(const psk_model *model, const char *folder);
PSK_API void psk_model_free(psk_model *model);
PSK_API const psk_model_config *psk_model_get_config(const psk_model *model);
PSK_API int64_t psk_model_parameter_count(const psk_model *model); /* trained numbers */

/* One tensor of the model, by index in file order; *data may be written between calls. False past the last. */
typedef struct psk_model_tensor {
    const char *name;
    int64_t dims, shape[2];
    float *data;
    int trained; /* 0: a random matrix that is saved, not trained */
} psk_model_tensor;
PSK_API int psk_model_tensor_at(const psk_model *model, int64_t index, psk_model_tensor *tensor);

/* Logits for whole sequences. tokens: B x N; logits: B x N x V. Plans its memory, runs, releases: for tests and small
 * uses. */
PSK_API psk_status psk_model_logits(psk_model *model, int64_t B, int64_t N, const int32_t *tokens, float *logits);

/* The plan of a training step (or, with training 0, of an evaluation) of B x N tokens, by category, before any of it is
 * taken, for a device that composes attention of the required operations. The fused attention of the CPU device has
 * a workspace of another size, which grows by 0.9 MiB a thread with blocks of 256, r = 32 and h = 64: gpt2-small takes
 * 6 MiB less than said on one thread, as much on 8, and 50 MiB more on 64. What a device keeps for itself, packed
 * weights and scratch, is not in it. */
typedef struct psk_memory_line {
    char category[32]; /* parameters, gradients, optimizer, activations, workspace, data */
    int64_t bytes;
} psk_memory_line;
typedef struct psk_memory_report {
    int64_t total;
    int64_t count;
    psk_memory_line lines[16];
} psk_memory_report;
PSK_API psk_status psk_model_memory(const psk_model_config *config, int64_t B, int64_t N, int training, int recompute,
                                    psk_memory_report *report);

/* -------------------------------------------------------------------------------------------------------- tokenizers
 */

/* Text to tokens (ids 0 ... V - 1) and back. There are three kinds:
 *   bytes           ids 0-255 are bytes, 256 is end-of-text
 *   byte-level BPE  GPT-2's: its pattern splits the text into pieces, then the pair of the lowest rank merges first
 *   SentencePiece   a .model file, through that library (UNSUPPORTED in a build without it)
 * The first two are exact: the texts of the tokens, one after the other, are the bytes that were encoded, whatever
 * bytes these were. A token with a meaning of its own, as end-of-text, never comes from text that spells its name: only
 * the caller puts it in, by id. A tokenizer does not change once loaded: any number of threads may use it at once. */
typedef struct psk_tokenizer psk_tokenizer;

/* name_or_path: "bytes"; or a folder, of a model or of data: tokenizer.model, else tokenizer.json, else vocab.json and
 * merges.txt in it, else "bytes" if its config.json has vocab_size 257; or one such file (*.model, *.json): a
 * tokenizer.json is ours or Hugging Face's of GPT-2's kind. Errors: ARGUMENT for what is neither a name nor there;
 * FILE; FORMAT naming file and line or entry; UNSUPPORTED naming what in the file would need another kind of tokenizer;
 * MEMORY. */
PSK_API psk_status psk_tokenizer_load(const char *name_or_path, psk_tokenizer **out);
PSK_API void psk_tokenizer_free(psk_tokenizer *tokenizer);

/* "bytes", "bpe-" or "sentencepiece-" and 16 hexadecimal digits: equal names mean equal tokens. Lives as long as the
 * tokenizer. */
PSK_API const char *psk_tokenizer_name(const psk_tokenizer *tokenizer);
PSK_API int64_t psk_tokenizer_vocab_size(const psk_tokenizer *tokenizer);
PSK_API int32_t psk_tokenizer_end_of_text(const psk_tokenizer *tokenizer); /* -1: the vocabulary has none */

/* ARGUMENT naming both sizes if the tokenizer has more tokens than a model with this vocab_size. */
PSK_API psk_status psk_tokenizer_check(const psk_tokenizer *tokenizer, int64_t vocab_size);

/* The tokens of `size` bytes of text, without any that mark a beginning or an end; *tokens, `*count` numbers, is
 * released by psk_buffer_free. The text may hold 0 bytes and need not be UTF-8. Errors: MEMORY. */
PSK_API psk_status psk_tokenizer_encode(const psk_tokenizer *tokenizer, const char *text, size_t size, int32_t **tokens,
                                        int64_t *count);

/* The bytes of one token, possibly a part of a character; no 0 byte follows them. End-of-text and others with a meaning
 * of their own have none (*size 0). *text lives as long as the tokenizer. Errors: ARGUMENT for a token outside the
 * vocabulary. */
PSK_API psk_status psk_tokenizer_token_text(const psk_tokenizer *tokenizer, int32_t token, const char **text,
                                            size_t *size);

/* The text of a sequence, a 0 byte after it that *size does not count; released by psk_buffer_free. What the tokens'
 * texts give joined, except that SentencePiece's models may put a space before a text, which is taken away here.
 * Errors: ARGUMENT for a token outside the vocabulary, MEMORY. */
PSK_API psk_status psk_tokenizer_decode(const psk_tokenizer *tokenizer, const int32_t *tokens, int64_t count,
                                        char **text, size_t *size);

/* Writes the files that psk_tokenizer_load(folder) needs to give the same tokenizer; each is atomic, tokenizer.json is
 * the last. Errors: FILE, MEMORY. */
PSK_API psk_status psk_tokenizer_save(const psk_tokenizer *tokenizer, const char *folder);

/* -------------------------------------------------------------------------------------------------------------- data
 */

/* Called now and then with what is done and what there is to do (bytes, tokens, ...); return non-zero to stop
 * (INTERRUPTED). */
typedef int (*psk_progress)(void *user, int64_t done, int64_t total);

/* clang-format off */
/* What the inputs of psk_prepare are. Any of them may be compressed by gzip or zstd: that is seen by the first bytes.
 *   auto      by name: .jsonl, .ndjson and .json are JSON lines; by content: WikiText begins with a level-1 heading;
 *             text otherwise, but for what is told by its first bytes to be none: archives, PDF, UTF-16, ... (FORMAT)
 *   text      one document a file, whatever its bytes
 *   jsonl     one document a line: the string in `field` of a JSON object
 *   wikitext  one document an article: each begins at a line " = Title = " after an empty line */
/* clang-format on */
typedef enum psk_text_format {
    PSK_FORMAT_AUTO,
    PSK_FORMAT_TEXT,
    PSK_FORMAT_JSONL,
    PSK_FORMAT_WIKITEXT
} psk_text_format;

/* What is held out for validation.   tail: the last part of every document (a document's length must be known: no text
 * from a pipe);   hash: whole documents, chosen by a hash of their first 65,536 bytes, so that equal documents fall on
 * the same side whatever their order. */
typedef enum psk_split_rule { PSK_SPLIT_TAIL, PSK_SPLIT_HASH } psk_split_rule;

/* "auto", ...; "tail", ...; NULL for a value that is none. Literals. */
PSK_API const char *psk_text_format_name(psk_text_format format);
PSK_API const char *psk_split_rule_name(psk_split_rule rule);

typedef struct psk_prepare_options {
    const char *const *inputs; /* files, "-" (standard input), and folders (all their files with names of text: .txt,
                                  .jsonl, ..., also .gz and .zst; sorted by name, folders inside are not entered) */
    int64_t input_count;
    const char *const *valid_inputs; /* all of these is held out, and nothing of `inputs` */
    int64_t valid_input_count;       /* 0: `split` and valid_fraction decide */
    const char *output;    /* folder for train-00000.psk, ..., valid-00000.psk, ..., the tokenizer, prepare.json */
    const char *tokenizer; /* "bytes": ids 0-255 are bytes, 256 is end-of-text */
    psk_text_format format;
    const char *field; /* of JSON lines */
    psk_split_rule split;
    double valid_fraction; /* 0 <= f < 1 */
    int skip_bad_lines;    /* JSON lines that cannot be used are counted and left out; 0: the first one is an error */
    int64_t shard_tokens;  /* tokens a shard, 100e6 by default */
    int threads;           /* 0: as many as the process may use. The shards do not depend on it */
    psk_progress progress; /* bytes of the files as they lie on the disk; total 0: not known. NULL: none. Called after
                              shards and rounds of blocks, by one thread at a time, not always the same */
    void *user;
} psk_prepare_options;
/* What `polysketch prepare --help` shows; inputs, valid_inputs and output are NULL. */
PSK_API psk_prepare_options psk_prepare_options_default(void);

typedef struct psk_prepare_result {
    int64_t documents, bytes, train_tokens, valid_tokens, shards; /* bytes of text */
    int64_t empty;                                                /* documents without text, left out */
    int64_t skipped;                                              /* bad lines, left out */
    char first_skipped[512]; /* where the first of them is and why; "" if there was none */
} psk_prepare_result;

/* Text to shards; documents end with an end-of-text token. The same inputs give the same bytes, whatever the number of
 * threads. Memory: about 24 MiB a thread and 16 MiB beside it, not more for a larger corpus; a JSON line or an article
 * may have 32 MiB, and then takes some 200 MiB.
 * When it is stopped, killed or fails on the way, what was done stays in `output`, which training refuses until the
 * same call (as to inputs and options; skip_bad_lines may become 1) has gone on from there to the end: the shards are
 * then those of one run.
 * Errors: ARGUMENT naming the option, an empty input or what differs from the call that began; FILE, also while another
 * preparation has the output folder; FORMAT naming file
 * and line; UNSUPPORTED: gzip or zstd was not built in; MEMORY; INTERRUPTED. */
PSK_API psk_status psk_prepare(const psk_prepare_options *options, psk_prepare_result *result);

/* Verifies a prepared folder: that it was finished, every shard whole, the numbers in prepare.json. Errors: FILE,
 * FORMAT naming the file. */
PSK_API psk_status psk_prepare_check(const char *folder, psk_prepare_result *result);

/* Reads a shard's header and, with check != 0, verifies its checksum. Errors: FILE, FORMAT naming file and field. */
typedef struct psk_shard_info {
    int64_t version, tokens, documents, vocab_size, token_bytes, file_bytes;
    uint64_t checksum; /* XXH3-64 */
    char tokenizer[32];
} psk_shard_info;
PSK_API psk_status psk_shard_read_info(const char *path, int check, psk_shard_info *info);

/* A new vocabulary for byte-pair encoding, made of the user's text by SentencePiece's trainer. */
typedef struct psk_tokenizer_train_options {
    const char *const *inputs; /* as those of psk_prepare */
    int64_t input_count;
    psk_text_format format;
    const char *field;     /* of JSON lines */
    const char *output;    /* folder for tokenizer.model and tokenizer.json; none that holds a tokenizer or shards */
    int64_t vocab_size;    /* with the 256 bytes, end-of-text, one for what is unknown, which never comes, and one for
                              each character of the text (but the rarest, 5 in 10,000 of it): so many at least */
    int64_t max_bytes;     /* how much of the text, from its beginning, is looked at; 0: all. It is held in memory */
    psk_progress progress; /* bytes of the files read. NULL: none */
    /* Called with 0 when all is read and the merges are to be made, which takes longest, tells no progress and cannot
     * be stopped: nothing is written yet, so the process may be ended; with 1 when they are made and the files come
     * next. Non-zero: go no further (INTERRUPTED). NULL: none */
    int (*merging)(void *user, int made);
    void *user; /* of both */
} psk_tokenizer_train_options;
/* What `polysketch tokenizer train --help` shows; inputs and output are NULL. */
PSK_API psk_tokenizer_train_options psk_tokenizer_train_options_default(void);

/* Writes a tokenizer that is exact for any bytes: nothing is normalised, and what no token covers becomes bytes. The
 * same text gives the same vocabulary. Errors: ARGUMENT naming the option, for a vocab_size that does not go with the
 * text also the least or the most that does; FILE, FORMAT naming the input; UNSUPPORTED without SentencePiece; MEMORY;
 * INTERRUPTED. Nothing is written then. */
PSK_API psk_status psk_tokenizer_train(const psk_tokenizer_train_options *options);

/* ---------------------------------------------------------------------------------------------------------- training
 */

typedef enum psk_schedule { PSK_SCHEDULE_COSINE, PSK_SCHEDULE_LINEAR, PSK_SCHEDULE_CONSTANT } psk_schedule;

typedef struct psk_train_options {
    const char *data;   /* folder made by psk_prepare */
    const char *output; /* run folder: config.json, options.json, checkpoints/, best -> ..., metrics.jsonl,
                           events.out.tfevents.* */
    int resume;         /* continue from the newest whole checkpoint of output, bit for bit */
    int64_t steps;      /* optimiser steps in all */
    double
        seconds; /* stop cleanly after so many seconds of training; 0: no limit. The schedule then follows the clock */
    int64_t batch_size;                      /* sequences a micro-batch */
    int64_t context;                         /* N tokens a sequence */
    int64_t accumulate;                      /* micro-batches a step */
    double learning_rate, min_learning_rate; /* peak and end */
    int64_t warmup_steps;
    psk_schedule schedule;
    psk_precision precision;                               /* psk_train sets it on the model's device */
    double beta1, beta2, epsilon, weight_decay, grad_clip; /* decay on matrices only; clip by the global norm, 0: off */
    double dropout;
    int reset_at_documents; /* attention and positions start afresh at each end-of-text */
    int align_documents;    /* windows of documents of at least N tokens begin where these begin (docs/data.md) */
    int recompute;          /* keep only the layers' inputs, recompute inside backward */
    int64_t eval_every, eval_batches, save_every, keep_last; /* 0: never / none */
    uint64_t seed;                                           /* weights, order of the data, dropout */
} psk_train_options;
/* What `polysketch train --help` shows, context 512; data and output are NULL. */
PSK_API psk_train_options psk_train_options_default(void);

/* The options with which the run in folder `output` was started (options.json), for resuming: all of them, with
 * output = output, resume = 0 and data = `data`, a buffer of the caller's. Errors: FILE, FORMAT; ARGUMENT if the
 * path does not fit `capacity`. */
PSK_API psk_status psk_train_options_read(const char *output, psk_train_options *options, char *data, size_t capacity);

typedef struct psk_train_progress {
    int64_t step, steps, tokens; /* tokens seen in all */
    double loss, grad_norm, learning_rate, tokens_per_second, seconds, seconds_left;
    double valid_loss, best_valid_loss; /* nats per token; NaN where there is none (yet) */
    int64_t memory_bytes;               /* peak resident set */
    const char *note;                   /* NULL, or a line for people: checkpoint written, ... */
} psk_train_progress;

/* Called after each step and each evaluation, and when a run is resumed, with the figures of the step it goes on from;
 * return non-zero to stop: a checkpoint is written and PSK_ERROR_INTERRUPTED returned. */
typedef int (*psk_train_callback)(void *user, const psk_train_progress *progress);

/* Trains `model` in place. A loss or gradient that is not finite: PSK_ERROR_NUMERIC naming step and tensor; the last
 * good checkpoint stays. UNSUPPORTED for a precision that the device lacks. With resume the weights come from the
 * checkpoint (config must agree). FILE while another training has the output folder. */
PSK_API psk_status psk_train(psk_model *model, const psk_train_options *options, psk_train_callback callback,
                             void *user);

/* -------------------------------------------------------------------------------------------------------- evaluation
 */

typedef struct psk_eval_options {
    const char *data;               /* a folder made by psk_prepare, or a file that it would read (field "text") */
    const char *split;              /* "valid" or "train"; ignored for a text file */
    const psk_tokenizer *tokenizer; /* of a text file, whose documents end with its end-of-text; NULL: bytes */
    int64_t context;                /* N; 0: the model's n_positions */
    int64_t stride;                 /* tokens from one window to the next, 1 ... N; 0: N, windows do not overlap */
    int64_t batch_size;
    int64_t max_tokens; /* 0: all */
    psk_progress progress;
    void *user;
} psk_eval_options;
/* What `polysketch eval --help` shows; data is NULL. */
PSK_API psk_eval_options psk_eval_options_default(void);

/* Mean loss of the targets that were predicted from first ... last tokens of context. */
typedef struct psk_eval_bucket {
    int64_t first, last, tokens;
    double loss, standard_error; /* nats per token; the error by windows (NaN: only one) */
} psk_eval_bucket;
#define PSK_EVAL_BUCKETS 64 /* two an octave: 1, 2, 3, 4-5, 6-7, 8-11, 12-15, ... */

typedef struct psk_eval_result {
    int64_t tokens, bytes, words;     /* predicted; words: what white space separates */
    double loss, standard_error;      /* nats per token; the error by windows (NaN: only one) */
    double perplexity, bits_per_byte; /* per token: exp(loss) */
    double word_perplexity;           /* exp(loss tokens / words) */
    int64_t bucket_count;             /* loss by position in the context, over all targets of all windows */
    psk_eval_bucket buckets[PSK_EVAL_BUCKETS];
} psk_eval_result;
/* Over the whole split in windows of N tokens, each `stride` after the one before. A target counts once: in the first
 * window that holds it, so with a stride below N every target but those of the first window has at least N - stride
 * tokens of context. Twice the same. Errors: ARGUMENT naming the option, FILE, FORMAT naming shard or file,
 * UNSUPPORTED, MEMORY, NUMERIC for a loss that is not finite, INTERRUPTED. */
PSK_API psk_status psk_evaluate(psk_model *model, const psk_eval_options *options, psk_eval_result *result);

typedef struct psk_choice_options {
    const char *questions; /* JSON lines: HellaSwag or PIQA as published; or context, choices, answer */
    const char *labels;    /* of PIQA; NULL: the object's; where it has none, NAME-labels.lst beside NAME.jsonl */
    const psk_tokenizer *tokenizer; /* NULL: bytes */
    int64_t shots;                  /* questions with their answers before each one */
    const char *shot_questions;     /* a file to draw them from; NULL: the same file, without the question itself */
    uint64_t seed;                  /* of the draw */
    int64_t context;       /* tokens of prompt and choice, of longer ones the last; 0: the model's n_positions */
    int64_t batch_size;    /* choices at once */
    int64_t max_questions; /* spread evenly over the file; 0: all */
    psk_progress progress; /* in tokens */
    void *user;
} psk_choice_options;
/* What `polysketch eval --help` shows; questions is NULL. */
PSK_API psk_choice_options psk_choice_options_default(void);

typedef struct psk_choice_result {
    int64_t questions, choices, tokens;
    int64_t truncated;                          /* choices that lost a part of their prompt to `context` */
    double accuracy;                            /* the right choice has the largest log-probability */
    double accuracy_norm;                       /* ... the largest log-probability a character */
    double standard_error, standard_error_norm; /* of the two: sqrt(p (1 - p) / (n - 1)) */
} psk_choice_result;
/* Multiple choice as EleutherAI's lm-evaluation-harness asks it: the log-probability of each choice after the prompt
 * (HellaSwag cleaned as there, PIQA as "Question: ...\nAnswer:"; examples, where asked for, before it). Errors:
 * ARGUMENT naming the option; FILE; FORMAT naming file, line and field; MEMORY; NUMERIC; INTERRUPTED. */
PSK_API psk_status psk_evaluate_choices(psk_model *model, const psk_choice_options *options, psk_choice_result *result);

/* --------------------------------------------------------------------------------------------------- synthetic tasks
 */

/* Sequences with known answers that tell what a mechanism can learn: to leave noise out (selective copying), to find
 * what followed last time (induction heads). Gu and Dao, arXiv 2312.00752, section 4.1. */
typedef enum psk_task_kind { PSK_TASK_SELECTIVE_COPYING, PSK_TASK_INDUCTION_HEADS } psk_task_kind;
PSK_API const char *psk_task_name(psk_task_kind kind); /* "selective_copying", ...; NULL past the last. A literal */

typedef struct psk_task {
    psk_task_kind kind;
    int64_t vocab_size; /* V: selective copying: 0 noise, 1 ... V - 2 data; induction heads: 0 ... V - 2; V - 1 marks */
    int64_t copies;     /* K data tokens to copy in order; selective copying */
    int64_t shortest;   /* training also at N/2, N/4, ... down to this, a length a step; 0: at N alone */
    uint64_t seed;      /* an example is a pure function of (task, N, its index) */
} psk_task;
PSK_API psk_task psk_task_default(psk_task_kind kind); /* V 16, K 16, shortest 16, seed 1 */

/* The test examples first ... first + count - 1 of N tokens.   tokens, targets: count x N; a target is -1 where nothing
 * is asked. With count 0 task and N are checked. Errors: ARGUMENT naming the field. */
PSK_API psk_status psk_task_examples(const psk_task *task, int64_t N, int64_t first, int64_t count, int32_t *tokens,
                                     int32_t *targets);

typedef struct psk_task_result {
    int64_t examples, answers; /* answers: targets in all */
    double accuracy;           /* part of the answers that are right, each with the right ones before it */
    double accuracy_all;       /* part of the examples of which every answer is right */
    double stderr_all;         /* standard error of accuracy_all */
} psk_task_result;

/* Errors: ARGUMENT naming the field, MEMORY, INTERRUPTED. Progress counts examples. */
PSK_API psk_status psk_task_test(psk_model *model, const psk_task *task, int64_t N, int64_t examples,
                                 psk_progress progress, void *user, psk_task_result *result);

typedef struct psk_task_progress {
    int64_t step, steps;
    double loss, grad_norm, learning_rate, seconds;
    double accuracy; /* accuracy_all of the latest test at the length of training; NaN: none yet */
} psk_task_progress;
typedef int (*psk_task_callback)(void *user, const psk_task_progress *progress); /* after each step; non-zero stops */

/* Trains `model` in place on examples that are made on the way, of options->context tokens; with task->shortest half of
 * the length, and half again, is as likely in a step, twice and four times as many examples. Of the options it takes
 * those of length, batch and optimiser, dropout and its seed; every eval_every steps it tests eval_batches batches, and
 * it ends when accuracy_all reaches `enough` (above 1: never). Errors: as psk_train; INTERRUPTED if the callback stops.
 */
PSK_API psk_status psk_task_train(psk_model *model, const psk_task *task, const psk_train_options *options,
                                  double enough, psk_task_callback callback, void *user);

/* -------------------------------------------------------------------------------------------------------- generation
 */

/* One sequence being read or written, with its state: of constant size for linear mechanisms (plus at most 2 b exact
 * rows), a growing cache for softmax and polynomial. Logits equal those of psk_model_logits on the whole sequence,
 * however it is cut into calls, saved and restored (1e-4 relative in float32).
 *
 * What one call works in (and, in bfloat16, a copy of the weights) belongs to the model and is shared by its sessions:
 * made with the first session, released with the last, so that a server keeps one empty session for as long as it
 * runs. The weights must not change while there is a session; sessions are freed before their model. All sessions of a
 * model are used by one thread at a time. */
typedef struct psk_session psk_session;
PSK_API psk_status psk_session_create(psk_model *model, psk_session **out);
PSK_API void psk_session_free(psk_session *session);
PSK_API void psk_session_reset(psk_session *session); /* back to no tokens */

/* A second session that stands where this one stands; afterwards they are independent. Errors: MEMORY; ARGUMENT after a
 * call that left the session in the middle of a token. */
PSK_API psk_status psk_session_clone(const psk_session *session, psk_session **out);

/* Appends count >= 1 tokens; logits (V) of the last one, or NULL. Many tokens are read in chunks of bounded memory by
 * the block algorithm, a single one is a step (psk_session_step). Errors: ARGUMENT for a token outside the vocabulary
 * or a session that would hold more than 2^31 - 1: nothing has changed then. MEMORY, on the way through the layers too:
 * the session may then be in the middle of a token, and every later call but reset and free says so (ARGUMENT). */
PSK_API psk_status psk_session_append(psk_session *session, const int32_t *tokens, int64_t count, float *logits);

/* The logits (V, valid during the call) after token `index` of the tokens given; return non-zero to stop. */
typedef int (*psk_logits_visitor)(void *user, int64_t index, const float *logits);

/* As psk_session_append, with the logits after every token, in order: for the log-probabilities of a prompt.
 * The visitor must not use a session of the model. INTERRUPTED if it stops; the session then stands at the end of a
 * chunk: reset or free it. */
PSK_API psk_status psk_session_append_each(psk_session *session, const int32_t *tokens, int64_t count,
                                           psk_logits_visitor visitor, void *user);

/* One token each into `count` >= 1 different sessions of one model.   logits: count x V, or NULL. Row i has the very
 * bits of a step of that session alone, whatever sessions are beside it. Errors as for append, for all sessions alike,
 * and ARGUMENT for sessions of two models or one given twice. */
PSK_API psk_status psk_session_step(psk_session *const *sessions, int64_t count, const int32_t *tokens, float *logits);

PSK_API int64_t psk_session_length(const psk_session *session); /* tokens so far */
/* Bytes of its memory, now: state, rows, and on a device in bfloat16 the rounded copies of both that its steps read. */
PSK_API int64_t psk_session_bytes(const psk_session *session);

/* What psk_session_bytes will be after so many tokens; -1 if that does not fit 64 bits. */
PSK_API int64_t psk_session_bytes_at(const psk_model *model, int64_t tokens);

/* The state as a file (safetensors; docs/formats.md), or as the same file in memory (*bytes is released by
 * psk_buffer_free). It can be continued by any process that has the same model: load and unpack refuse another model's
 * state, one that is damaged, cut off, of a later version or with numbers that are not finite (FORMAT, with the
 * reason). Other errors: FILE, MEMORY. */
PSK_API psk_status psk_session_save(const psk_session *session, const char *path);
PSK_API psk_status psk_session_load(psk_model *model, const char *path, psk_session **out);
PSK_API psk_status psk_session_pack(const psk_session *session, void **bytes, size_t *size);
PSK_API psk_status psk_session_unpack(psk_model *model, const void *bytes, size_t size, psk_session **out);

/* At most so many bytes are such a file after so many tokens; -1 if that does not fit 64 bits. */
PSK_API int64_t psk_session_file_bytes_at(const psk_model *model, int64_t tokens);

/* What identifies a model: XXH3-128 of its config and all its weights, as 32 hexadecimal digits. Reads every weight
 * (about 50 ms for GPT-2 small), once while there is a session. */
#define PSK_MODEL_HASH_CAPACITY 33
PSK_API psk_status psk_model_hash(psk_model *model, char text[PSK_MODEL_HASH_CAPACITY]);

/* Added to the logit of one token. */
typedef struct psk_logit_bias {
    int32_t token;
    float bias; /* finite; by custom -100 means never and 100 always */
} psk_logit_bias;

/* How a token is chosen from V logits. Applied in this order, what is neutral changes nothing:
 *   1. penalties, on each token found in the last penalty_window tokens of the history (c times):
 *      logit = logit > 0 ? logit / repetition_penalty : logit * repetition_penalty    (Keskar et al., arXiv 1909.05858)
 *      logit -= presence_penalty + c frequency_penalty
 *   2. bias: logit += bias
 *   3. temperature T: weight = exp((logit - largest logit) / T). T = 0: the token is the one with the largest logit,
 *      ties go to the smaller id, and nothing below applies
 *   4. top_k: the k tokens with the largest logits stay, ties go to the smaller id
 *   5. top_p: of these the fewest from the largest down whose weights reach top_p of their sum (at least one)
 *   6. min_p: of these the ones whose weight is at least min_p times the largest
 *   7. one of the kept tokens, with the probability of its weight.
 * Start from psk_sampling_default: in a struct of zeros top_p and repetition_penalty are out of range. */
typedef struct psk_sampling {
    float temperature;          /* >= 0 [0.8] */
    int64_t top_k;              /* >= 0, 0: all [0] */
    float top_p;                /* 0 < p <= 1, 1: all [1] */
    float min_p;                /* 0 <= p <= 1, 0: all [0] */
    float repetition_penalty;   /* > 0, 1: none, above 1: fewer repetitions [1] */
    float presence_penalty;     /* any finite number, 0: none [0] */
    float frequency_penalty;    /* the same, for each time that the token is there [0] */
    int64_t penalty_window;     /* >= 0 tokens, 0: the whole history, in whose length a token's time then grows [0] */
    const psk_logit_bias *bias; /* bias_count entries of the caller's; several for one token add up [NULL] */
    int64_t bias_count;         /* [0] */
    uint64_t seed;              /* [1] */
} psk_sampling;
/* The values in brackets above, and what `polysketch generate --help` shows. */
PSK_API psk_sampling psk_sampling_default(void);

/* Whether psk_sample would take these for a vocabulary of V tokens. Errors: ARGUMENT naming the field, its value and
 * its range. */
PSK_API psk_status psk_sampling_check(const psk_sampling *sampling, int64_t V);

/* Token number `index` of the stream of this seed: a pure function of its arguments. logits: V, left alone. history:
 * the history_count >= 0 tokens before, for the penalties (NULL if 0). Errors: ARGUMENT as above, or for a token of the
 * history outside the vocabulary; NUMERIC naming the token whose logit is not finite; MEMORY. */
PSK_API psk_status psk_sample(const psk_sampling *sampling, int64_t V, const float *logits, const int32_t *history,
                              int64_t history_count, int64_t index, int32_t *token);

/* log(softmax(logits)) in nats, of the logits as they are (no temperature, no penalties): of `token` into *logprob, and
 * of the `top` likeliest tokens, likeliest first, ties to the smaller id. logits: V; top: 0 ... V; top_tokens and
 * top_logprobs: top, NULL if 0. Errors: ARGUMENT for a token outside the vocabulary or a top outside its range, NUMERIC
 * naming the token whose logit is not finite, MEMORY. */
PSK_API psk_status psk_log_probabilities(int64_t V, const float *logits, int32_t token, int64_t top, float *logprob,
                                         int32_t *top_tokens, float *top_logprobs);

/* From the bytes of tokens as they come to text that can be shown: whole UTF-8 characters only, and never a part of a
 * stop string. Bytes that belong to no character come out as U+FFFD, one for each longest beginning of a character
 * (Unicode, section 3.9). The text ends before the first stop string that becomes complete (of several at one place the
 * longest); it is the same however the bytes are cut into calls. */
typedef struct psk_text_stream psk_text_stream;

/* stops: stop_count >= 0 strings, copied. Errors: ARGUMENT for one that is empty or not UTF-8, MEMORY. */
PSK_API psk_status psk_text_stream_create(const char *const *stops, int64_t stop_count, psk_text_stream **out);
PSK_API void psk_text_stream_free(psk_text_stream *stream);

/* Takes `size` bytes. *text, *text_size: what can be shown now, UTF-8 without a 0 at its end, maybe nothing; it belongs
 * to the stream and is valid until the next call. *stopped: whether a stop string has come, now or earlier; then no
 * more text comes. Held back are at most an unfinished character and the beginning of a stop string. Errors: MEMORY;
 * the stream is then as before. */
PSK_API psk_status psk_text_stream_push(psk_text_stream *stream, const char *bytes, size_t size, const char **text,
                                        size_t *text_size, int *stopped);

/* The end of the bytes: what was held back, U+FFFD for a character that was not finished. The stream is then as new. */
PSK_API psk_status psk_text_stream_finish(psk_text_stream *stream, const char **text, size_t *text_size);

/* --------------------------------------------------------------------------------------------------------- measuring
 */

/* C = A B once on the device (m x k times k x n), for the machine's own rate. */
PSK_API psk_status psk_matmul(psk_device *device, int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                              float *c);

/* out[i] = <x_i, y_i> once on the device, for the rate at which the machine reads memory.   x, y: rows x n, out: rows
 */
PSK_API psk_status psk_row_dots(psk_device *device, int64_t rows, int64_t n, const float *x, const float *y,
                                float *out);

/* For measuring how a step's time depends on the context: the session stands `tokens` later, as if it had read them.
 * Positions go on from there; a state stays as it is, a cache that grows is filled with zeros. Errors: ARGUMENT,
 * MEMORY; then nothing has changed. */
PSK_API psk_status psk_session_skip(psk_session *session, int64_t tokens);

/* What the session's next step will read: bytes of weights (once for all sessions of a step) and of its own state. */
typedef struct psk_step_bytes {
    int64_t weights, state;
} psk_step_bytes;
PSK_API psk_step_bytes psk_session_step_bytes(const psk_session *session);

/* Sketches (polysketch) or features (performer) alone, for measuring what a and b of an attention cost: of `rows` rows,
 * with parameters that are a pure function of (config, h). create, run often, free. The device must outlive it.
 *   x: rows x h -> s: rows x r;   with dx != NULL also backward: ds = dL/ds (may be overwritten) -> dx = dL/dx */
typedef struct psk_sketch_bench psk_sketch_bench;
PSK_API psk_status psk_sketch_bench_create(psk_device *device, const psk_attention_config *config, int64_t h,
                                           int64_t rows, psk_sketch_bench **out);
PSK_API psk_status psk_sketch_bench_run(psk_sketch_bench *bench, const float *x, float *s, float *ds, float *dx);
PSK_API void psk_sketch_bench_free(psk_sketch_bench *bench);

/* One training step (forward, backward, AdamW) of a fresh pass on random tokens, for measuring: create, run often,
 * free. */
typedef struct psk_step_bench psk_step_bench;
PSK_API psk_status psk_step_bench_create(psk_model *model, int64_t B, int64_t N, int recompute, psk_step_bench **out);
PSK_API psk_status psk_step_bench_run(psk_step_bench *bench, double *loss);
/* The forward of the same tokens alone, as in training; *loss: their mean loss in nats. */
PSK_API psk_status psk_step_bench_forward(psk_step_bench *bench, double *loss);
PSK_API double psk_step_bench_grad_norm(const psk_step_bench *bench); /* of the last run, before clipping */
PSK_API void psk_step_bench_free(psk_step_bench *bench);

#ifdef __cplusplus
}
#endif

#endif
