#include "infer/questions.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/file_names.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WHERE_SIZE 1100 /* a path and a line number */
#define LONGEST    ((size_t)64 << 20)

/* A file that is read line by line. */
typedef struct line_reader {
    const char *path;
    psk_mapping mapping;
    size_t next;    /* where the next line begins */
    int64_t number; /* of the current line, from 1 */
    const char *line;
    size_t size;
    char where[WHERE_SIZE]; /* "path, line 7" */
} line_reader;

/* The labels of PIQA's questions, one a line; file.path is NULL where there are none. */
typedef struct label_file {
    line_reader file;
    bool given; /* named by the caller, not found beside the questions */
} label_file;

/* The next line that is not empty; false at the end. */
static bool next_line(line_reader *reader) {
    while (reader->next < reader->mapping.size) {
        const char *const begin = (const char *)reader->mapping.data + reader->next;
        const size_t left = reader->mapping.size - reader->next;
        const char *const end = memchr(begin, '\n', left);
        reader->line = begin;
        reader->size = end ? (size_t)(end - begin) : left;
        reader->next += reader->size + 1;
        reader->number++;
        snprintf(reader->where, sizeof reader->where, "%s, line %" PRId64, reader->path, reader->number);
        while (reader->size > 0 && isspace((unsigned char)reader->line[reader->size - 1]))
            reader->size--;
        if (reader->size > 0)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------------- texts
 */

/* *out = the parts, one after the other. */
static psk_status join(const char *const *parts, size_t count, char **out) {
    size_t size = 1;
    for (size_t i = 0; i < count; i++)
        size += strlen(parts[i]);
    PSK_TRY(psk_alloc(size, "the text of a question", (void **)out));
    char *end = *out;
    *end = '\0';
    for (size_t i = 0; i < count; i++)
        end = stpcpy(end, parts[i]);
    return PSK_OK;
}

static int64_t characters_of(const char *text) {
    int64_t count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80; /* not a continuation byte of UTF-8 */
    return count < 1 ? 1 : count;
}

/* Every `from` becomes `to`, which is not longer, from left to right. */
static void replace(char *text, const char *from, const char *to) {
    char *out = text;
    for (const char *in = text; *in;) {
        if (strncmp(in, from, strlen(from)) == 0) {
            memcpy(out, to, strlen(to));
            out += strlen(to);
            in += strlen(from);
        } else
            *out++ = *in++;
    }
    *out = '\0';
}

/* Removes [...] within a line. */
static void remove_marks(char *text) {
    char *out = text;
    for (const char *in = text; *in;) {
        const size_t inside = *in == '[' ? strcspn(in, "]\n") : 0;
        if (inside > 0 && in[inside] == ']')
            in += inside + 1;
        else
            *out++ = *in++;
    }
    *out = '\0';
}

static void strip(char *text) {
    size_t size = strlen(text), start = strspn(text, " \t\n\v\f\r");
    while (size > start && isspace((unsigned char)text[size - 1]))
        size--;
    memmove(text, text + start, size - start);
    text[size - start] = '\0';
}

static void clean_hellaswag(char *text) {
    strip(text);
    replace(text, " [title]", ". ");
    remove_marks(text);
    replace(text, "  ", " ");
}

/* ------------------------------------------------------------------------------------------------------------ fields
 */

static psk_status need_string(const json_t *object, const char *where, const char *key, const char **value) {
    *value = NULL;
    PSK_TRY(psk_json_string(object, where, key, value));
    if (!*value)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the field \"%s\" is missing", where, key);
    return PSK_OK;
}

/* The strings object[key], two or more. */
static psk_status need_choices(const json_t *object, const char *where, const char *key, const json_t **list) {
    size_t i;
    json_t *entry;
    *list = json_object_get(object, key);
    if (!json_is_array(*list) || json_array_size(*list) < 2)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the field \"%s\" must be a list of two or more texts", where, key);
    json_array_foreach((json_t *)(uintptr_t)*list, i, entry) { /* jansson iterates without const */
        if (!json_is_string(entry))
            return psk_fail(PSK_ERROR_FORMAT, "%s: entry %zu of \"%s\" is not a text", where, i, key);
    }
    return PSK_OK;
}

/* 0 ... count - 1 from a number, or from digits in a text as some copies of HellaSwag have it. */
static psk_status need_answer(const json_t *object, const char *where, const char *key, int64_t count,
                              int64_t *answer) {
    const json_t *const value = json_object_get(object, key);
    const char *const text = json_string_value(value);
    if (!value || (text && !*text))
        return psk_fail(PSK_ERROR_FORMAT, "%s: the field \"%s\" is %s: a question needs its answer", where, key,
                        value ? "empty" : "missing");
    if (text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 10) {
        sscanf(text, "%" SCNd64, answer);
        if (*answer < count)
            return PSK_OK;
    }
    return psk_json_int(object, where, key, 0, count - 1, answer);
}

/* ------------------------------------------------------------------------------------------------------------- forms
 */

static psk_status add_choice(psk_question *question, const char *space, const char *text) {
    psk_choice *const choice = &question->choices[question->count];
    choice->characters = characters_of(text);
    PSK_TRY(join((const char *const[]){space, text}, 2, &choice->text));
    question->count++;
    return PSK_OK;
}

static psk_status reserve_choices(psk_question *question, size_t count) {
    return psk_alloc_zero(count * sizeof *question->choices, "choices", (void **)&question->choices);
}

/* ctx_b with its first letter large and the others small, as Python's capitalize does it (here for ASCII). */
static psk_status hellaswag_prompt(const json_t *object, const char *where, psk_question *question) {
    const char *label = NULL, *first = NULL, *second = "";
    PSK_TRY(psk_json_string(object, where, "activity_label", &label));
    PSK_TRY(psk_json_string(object, where, "ctx_a", &first));
    PSK_TRY(psk_json_string(object, where, "ctx_b", &second));
    const bool split = first != NULL;
    if (!split)
        PSK_TRY(need_string(object, where, "ctx", &first));
    PSK_TRY(
        join((const char *const[]){label ? label : "", label ? ": " : "", first, split ? " " : "", split ? second : ""},
             5, &question->prompt));
    if (split && *second) {
        char *const text = question->prompt + strlen(question->prompt) - strlen(second);
        for (char *c = text; *c; c++)
            *c = (char)(c == text ? toupper((unsigned char)*c) : tolower((unsigned char)*c));
    }
    clean_hellaswag(question->prompt);
    return PSK_OK;
}

static psk_status read_hellaswag(const json_t *object, const char *where, psk_question *question) {
    const json_t *endings;
    PSK_TRY(need_choices(object, where, "endings", &endings));
    const size_t count = json_array_size(endings);
    PSK_TRY(hellaswag_prompt(object, where, question));
    PSK_TRY(reserve_choices(question, count));
    for (size_t i = 0; i < count; i++) {
        char *text;
        PSK_TRY(psk_strdup(json_string_value(json_array_get(endings, i)), &text));
        clean_hellaswag(text);
        const psk_status status = add_choice(question, " ", text);
        psk_free(text);
        PSK_TRY(status);
    }
    return need_answer(object, where, "label", (int64_t)count, &question->answer);
}

/* From the given file; else from the object; else from the file beside. Each question has its line in a file, also
 * where it is not needed. */
static psk_status piqa_answer(const json_t *object, label_file *labels, const char *where, int64_t *answer) {
    line_reader *const file = &labels->file;
    const bool found = next_line(file);
    if (!labels->given && (!file->path || json_object_get(object, "label")))
        return need_answer(object, where, "label", 2, answer);
    if (!found)
        return psk_fail(PSK_ERROR_FORMAT, "%s ends before %s: one label a question is needed", file->path, where);
    if (file->size != 1 || (file->line[0] != '0' && file->line[0] != '1'))
        return psk_fail(PSK_ERROR_FORMAT, "%s: a label is 0 or 1, not \"%.*s\"", file->where,
                        (int)(file->size < 20 ? file->size : 20), file->line);
    *answer = file->line[0] - '0';
    return PSK_OK;
}

static psk_status read_piqa(const json_t *object, label_file *labels, const char *where, psk_question *question) {
    const char *goal, *solutions[2];
    PSK_TRY(need_string(object, where, "goal", &goal));
    PSK_TRY(need_string(object, where, "sol1", &solutions[0]));
    PSK_TRY(need_string(object, where, "sol2", &solutions[1]));
    PSK_TRY(join((const char *const[]){"Question: ", goal, "\nAnswer:"}, 3, &question->prompt));
    PSK_TRY(reserve_choices(question, 2));
    PSK_TRY(add_choice(question, " ", solutions[0]));
    PSK_TRY(add_choice(question, " ", solutions[1]));
    return piqa_answer(object, labels, where, &question->answer);
}

static bool ends_in_space(const char *text) {
    return *text && isspace((unsigned char)text[strlen(text) - 1]);
}

static psk_status read_plain(const json_t *object, const char *where, psk_question *question) {
    const char *context;
    const json_t *choices;
    PSK_TRY(need_string(object, where, "context", &context));
    PSK_TRY(need_choices(object, where, "choices", &choices));
    const size_t count = json_array_size(choices);
    PSK_TRY(psk_strdup(context, &question->prompt));
    PSK_TRY(reserve_choices(question, count));
    for (size_t i = 0; i < count; i++) {
        const char *const text = json_string_value(json_array_get(choices, i));
        if (!*text)
            return psk_fail(PSK_ERROR_FORMAT, "%s: entry %zu of \"choices\" is empty", where, i);
        const bool joined = !*context || ends_in_space(context) || isspace((unsigned char)*text);
        PSK_TRY(add_choice(question, joined ? "" : " ", text));
    }
    return need_answer(object, where, "answer", (int64_t)count, &question->answer);
}

/* -------------------------------------------------------------------------------------------------------------- file
 */

static void free_question(psk_question *question) {
    for (int64_t i = 0; i < question->count; i++)
        psk_free(question->choices[i].text);
    psk_free(question->choices);
    psk_free(question->prompt);
}

static psk_status read_object(const json_t *object, label_file *labels, const char *where, psk_question *question) {
    if (json_object_get(object, "endings"))
        return read_hellaswag(object, where, question);
    if (json_object_get(object, "goal"))
        return read_piqa(object, labels, where, question);
    if (json_object_get(object, "choices"))
        return read_plain(object, where, question);
    return psk_fail(PSK_ERROR_FORMAT,
                    "%s: no question: it has none of the fields \"endings\" (HellaSwag), \"goal\" (PIQA), \"choices\"",
                    where);
}

static psk_status make_room(psk_questions *questions) {
    psk_question *larger;
    if (questions->count < questions->capacity)
        return PSK_OK;
    const int64_t capacity = questions->capacity ? 2 * questions->capacity : 64;
    PSK_TRY(psk_alloc((size_t)capacity * sizeof *larger, "questions", (void **)&larger));
    if (questions->count > 0)
        memcpy(larger, questions->list, (size_t)questions->count * sizeof *larger);
    psk_free(questions->list);
    questions->list = larger;
    questions->capacity = capacity;
    return PSK_OK;
}

static psk_status read_line(const line_reader *reader, label_file *labels, psk_questions *questions) {
    json_t *object;
    psk_question question = {.prompt = NULL};
    if (reader->size > LONGEST)
        return psk_fail(PSK_ERROR_FORMAT, "%s: a line of %zu bytes; a question has at most %zu", reader->where,
                        reader->size, LONGEST);
    PSK_TRY(make_room(questions));
    PSK_TRY(psk_json_parse(reader->line, reader->size, reader->where, &object));
    const psk_status status = read_object(object, labels, reader->where, &question);
    json_decref(object);
    if (status == PSK_OK)
        questions->list[questions->count++] = question;
    else
        free_question(&question);
    return status;
}

/* The file of labels: the given one, or NAME-labels.lst beside NAME.jsonl if it is there. */
static psk_status open_labels(const char *path, const char *given, char beside[WHERE_SIZE], label_file *labels) {
    const size_t size = strlen(path);
    labels->given = given != NULL;
    labels->file.path = given;
    if (!given) {
        const size_t stem = psk_name_ends(path, ".jsonl") ? size - strlen(".jsonl") : size;
        const int needed = snprintf(beside, WHERE_SIZE, "%.*s-labels.lst", (int)stem, path);
        if (needed < 0 || needed >= WHERE_SIZE || !psk_is_file(beside))
            return PSK_OK;
        labels->file.path = beside;
    }
    return psk_map_file(labels->file.path, &labels->file.mapping);
}

psk_status psk_questions_read(const char *path, const char *labels_path, psk_questions *out) {
    psk_status status;
    char beside[WHERE_SIZE];
    line_reader reader = {.path = path};
    label_file labels = {.given = false};
    *out = (psk_questions){.list = NULL};
    PSK_TRY_GOTO(status, open_labels(path, labels_path, beside, &labels), done);
    PSK_TRY_GOTO(status, psk_map_file(path, &reader.mapping), done);
    while (next_line(&reader))
        PSK_TRY_GOTO(status, read_line(&reader, &labels, out), done);
    if (out->count == 0)
        status = psk_fail(PSK_ERROR_FORMAT, "%s holds no question", path);
    else if (labels.file.number > 0 && next_line(&labels.file))
        status = psk_fail(PSK_ERROR_FORMAT, "%s: a label without a question: %s has %" PRId64, labels.file.where, path,
                          out->count);
done:
    psk_unmap_file(&reader.mapping);
    psk_unmap_file(&labels.file.mapping);
    if (status != PSK_OK)
        psk_questions_free(out);
    return status;
}

void psk_questions_free(psk_questions *questions) {
    for (int64_t i = 0; i < questions->count; i++)
        free_question(&questions->list[i]);
    psk_free(questions->list);
    *questions = (psk_questions){.list = NULL};
}

/* ------------------------------------------------------------------------------------------------------------- shots
 */

/* Shot number `shot`: drawn again while it was drawn before, or is the question itself. */
static int64_t draw_shot(psk_rng *rng, int64_t count, int64_t excluded, int64_t *drawn, int64_t shot) {
    bool taken;
    do {
        drawn[shot] = (int64_t)psk_rng_below(rng, (uint64_t)count);
        taken = drawn[shot] == excluded;
        for (int64_t i = 0; i < shot && !taken; i++)
            taken = drawn[i] == drawn[shot];
    } while (taken);
    return drawn[shot];
}

psk_status psk_questions_prompt(const psk_questions *questions, int64_t index, const psk_questions *from, int64_t shots,
                                uint64_t seed, char **prompt) {
    psk_status status;
    int64_t *drawn = NULL;
    const char **parts = NULL;
    size_t used = 0;
    psk_rng rng = psk_rng_make(seed, psk_rng_stream("shots") + (uint64_t)index);
    const int64_t excluded = from == questions ? index : -1, all = from->count - (excluded >= 0);
    *prompt = NULL;
    if (shots < 0 || shots > all)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "shots is %" PRId64 ", must be 0 ... %" PRId64 ", as many questions as there are to draw from",
                        shots, all);
    PSK_TRY_GOTO(status, psk_alloc((size_t)shots * sizeof *drawn, "shots", (void **)&drawn), done);
    PSK_TRY_GOTO(status, psk_alloc((size_t)(3 * shots + 1) * sizeof *parts, "shots", (void **)&parts), done);
    for (int64_t i = 0; i < shots; i++) {
        const psk_question *const shot = &from->list[draw_shot(&rng, from->count, excluded, drawn, i)];
        parts[used++] = shot->prompt;
        parts[used++] = shot->choices[shot->answer].text;
        parts[used++] = "\n\n";
    }
    parts[used++] = questions->list[index].prompt;
    status = join(parts, used, prompt);
done:
    psk_free(drawn);
    psk_free(parts);
    return status;
}
