#include "options.h"

#include "terminal.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WHOLE_LIMIT 9007199254740992.0 /* 2^53: up to here every whole number is a double */

/* Where a value stands: "" on the command line, "FILE: " in a config file; and the message if it is wrong. */
typedef struct option_reader {
    const command_usage *usage;
    const char *where;
    char message[640];
} option_reader;

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static bool
refuse(option_reader *reader, const char *format, ...) {
    const int used = snprintf(reader->message, sizeof reader->message, "%s", reader->where);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->message + used, sizeof reader->message - (size_t)used, format, arguments);
    va_end(arguments);
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ names
 */

/* Levenshtein distance of words of at most 63 letters, longer ones are cut. */
static size_t word_distance(const char *a, const char *b) {
    size_t row[64];
    const size_t n = strnlen(a, 63), m = strnlen(b, 63);
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            const size_t least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            row[j] = changed < least + 1 ? changed : least + 1;
        }
    }
    return row[m];
}

/* How little `word` looks like `name`: 0 is the same; a beginning or an end counts as nearly the same. */
static size_t unlikeness(const char *word, const char *name) {
    const size_t n = strlen(word), m = strlen(name);
    if (n >= 3 && n < m && (strncmp(word, name, n) == 0 || strcmp(word, name + m - n) == 0))
        return 1;
    return word_distance(word, name);
}

static bool is_near(const char *word, size_t unlike) {
    const size_t third = strlen(word) / 3;
    return unlike <= (third > 2 ? third : 2) && unlike < strlen(word);
}

const char *nearest_name(const char *word, const char *const *names) {
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (; *names; names++) {
        const size_t unlike = unlikeness(word, *names);
        if (unlike < least) {
            least = unlike;
            best = *names;
        }
    }
    return best && is_near(word, least) ? best : NULL;
}

/* Names are equal if they differ only in - and _ : config files written by programs have the latter. */
static bool same_name(const char *name, const char *word, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (name[i] == '\0' || (word[i] == '_' ? '-' : word[i]) != name[i])
            return false;
    return name[length] == '\0';
}

static const command_option *find_option(const command_usage *usage, const char *word, size_t length) {
    for (size_t g = 0; g < usage->group_count; g++)
        for (size_t i = 0; i < usage->groups[g].count; i++)
            if (same_name(usage->groups[g].options[i].name, word, length))
                return &usage->groups[g].options[i];
    return NULL;
}

/* `dashes`: "--" on the command line; "" in a file, which has neither --config nor --help. */
static bool refuse_name(option_reader *reader, const char *dashes, const char *word, size_t length) {
    const char *names[128] = {"config", "help"}; /* ends with NULL */
    size_t count = *dashes ? 2 : 0;
    for (size_t g = 0; g < reader->usage->group_count; g++)
        for (size_t i = 0; i < reader->usage->groups[g].count && count < 127; i++)
            names[count++] = reader->usage->groups[g].options[i].name;
    char plain[64];
    snprintf(plain, sizeof plain, "%.*s", (int)length, word);
    const char *const near = nearest_name(plain, names);
    if (near)
        return refuse(reader, "no option '%s%s' (did you mean '%s%s'?)", dashes, plain, dashes, near);
    if (!*dashes && strcmp(plain, "config") == 0)
        return refuse(reader, "--config is no option of a file: give it again on the command line");
    return refuse(reader, "no option '%s%s'", dashes, plain);
}

/* ----------------------------------------------------------------------------------------------------------- values
 */

/* 1000000000000 as 1e12, smaller ones as they are. */
static const char *format_bound(char text[FORMAT_CAPACITY], double bound) {
    snprintf(text, FORMAT_CAPACITY, "%.10g", bound);
    char *const exponent = strstr(text, "e+");
    if (exponent)
        memmove(exponent + 1, exponent + 2, strlen(exponent + 2) + 1);
    return text;
}

static bool check_range(option_reader *reader, const command_option *option, const char *text, double value) {
    char low[FORMAT_CAPACITY], high[FORMAT_CAPACITY];
    if (value >= option->low && value <= option->high)
        return true;
    return refuse(reader, "--%s: %s is outside %s ... %s", option->name, text, format_bound(low, option->low),
                  format_bound(high, option->high));
}

static bool read_number(const char *text, const char *letters, double *value, const char **rest) {
    if (!isdigit((unsigned char)text[text[0] == '-']) || text[strspn(text, letters)] != '\0')
        return false;
    char *end;
    *value = strtod(text, &end);
    *rest = end;
    return isfinite(*value);
}

static bool parse_whole(const char *text, int64_t kilo, int64_t *value) {
    double number;
    const char *rest;
    if (!read_number(text, "0123456789.eE+-kKMG", &number, &rest))
        return false;
    static const char suffixes[] = "kMG";
    if (*rest) {
        const char *const suffix = strchr(suffixes, *rest == 'K' ? 'k' : *rest);
        if (!suffix || rest[1])
            return false;
        number *= pow((double)kilo, (double)(suffix - suffixes + 1));
    }
    if (number != floor(number) || fabs(number) > WHOLE_LIMIT)
        return false;
    *value = (int64_t)number;
    return true;
}

static int64_t option_kilo(const command_option *option) {
    return option->type == OPTION_COUNT ? 1000 : 1024;
}

static bool read_whole(option_reader *reader, const command_option *option, const char *text, int64_t *value) {
    if (!parse_whole(text, option_kilo(option), value))
        return refuse(reader, "--%s: '%s' is not a whole number", option->name, text);
    return check_range(reader, option, text, (double)*value);
}

static bool set_seed(option_reader *reader, const command_option *option, const char *text) {
    char *end;
    errno = 0;
    const uint64_t value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return refuse(reader, "--%s: '%s' is not a whole number from 0 to 2^64 - 1", option->name, text);
    *(uint64_t *)option->target = value;
    return true;
}

static bool set_real(option_reader *reader, const command_option *option, const char *text) {
    double value;
    const char *rest;
    if (!read_number(text, "0123456789.eE+-", &value, &rest) || *rest)
        return refuse(reader, "--%s: '%s' is not a number", option->name, text);
    if (!check_range(reader, option, text, value))
        return false;
    *(double *)option->target = value;
    return true;
}

static bool set_flag(option_reader *reader, const command_option *option, const char *text) {
    const bool on = strcmp(text, "true") == 0;
    if (!on && strcmp(text, "false") != 0)
        return refuse(reader, "--%s: '%s' is neither true nor false", option->name, text);
    *(int *)option->target = on;
    return true;
}

static bool read_choice(option_reader *reader, const command_option *option, const char *text, int *index) {
    char list[256] = "";
    for (int i = 0; option->names[i]; i++) {
        if (strcmp(option->names[i], text) == 0) {
            *index = i;
            return true;
        }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", option->names[i]);
    }
    return refuse(reader, "--%s: '%s' is none of %s", option->name, text, list);
}

static bool set_list(option_reader *reader, const command_option *option, const char *text) {
    option_list list = {.count = 0};
    if (option->type == OPTION_CHOICES && strcmp(text, "all") == 0) {
        for (; option->names[list.count]; list.count++)
            list.values[list.count] = list.count;
        *(option_list *)option->target = list;
        return true;
    }
    for (const char *item = text;; item++) {
        const size_t length = strcspn(item, ",");
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1), item);
        if (list.count == OPTION_LIST_CAPACITY)
            return refuse(reader, "--%s: more than %d values", option->name, OPTION_LIST_CAPACITY);
        int index = 0;
        int64_t value = 0;
        if (option->type == OPTION_CHOICES ? !read_choice(reader, option, word, &index)
                                           : !read_whole(reader, option, word, &value))
            return false;
        list.values[list.count++] = option->type == OPTION_CHOICES ? index : value;
        item += length;
        if (*item == '\0')
            break;
    }
    *(option_list *)option->target = list;
    return true;
}

static bool add_text(option_reader *reader, const command_option *option, const char *text) {
    text_list *const list = option->target;
    const bool from_file = *reader->where != '\0';
    if (list->from_file && !from_file)
        list->count = 0;
    if (list->count == OPTION_LIST_CAPACITY)
        return refuse(reader, "--%s: given more than %d times", option->name, OPTION_LIST_CAPACITY);
    list->from_file = from_file;
    list->values[list->count++] = text;
    return true;
}

static bool set_picture(option_reader *reader, const command_option *option, const char *text) {
    const size_t length = strlen(text);
    if (length < 5 || strcasecmp(text + length - 4, ".png") != 0)
        return refuse(reader, "--%s: '%s' does not end in .png: pictures are PNG", option->name, text);
    *(const char **)option->target = text;
    return true;
}

static bool set_option(option_reader *reader, const command_option *option, const char *text) {
    switch (option->type) {
    case OPTION_COUNT:
    case OPTION_LENGTH:
        return read_whole(reader, option, text, option->target);
    case OPTION_SEED:
        return set_seed(reader, option, text);
    case OPTION_REAL:
        return set_real(reader, option, text);
    case OPTION_TEXT:
        *(const char **)option->target = text;
        return true;
    case OPTION_PICTURE:
        return set_picture(reader, option, text);
    case OPTION_FLAG:
        return set_flag(reader, option, text);
    case OPTION_CHOICE:
        return read_choice(reader, option, text, option->target);
    case OPTION_LENGTHS:
    case OPTION_CHOICES:
        return set_list(reader, option, text);
    case OPTION_TEXTS:
        return add_text(reader, option, text);
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------ config file
 */

/* A scalar of the file as it would be typed; strings stay the file's own. */
static const char *json_word(const json_t *value, char buffer[64]) {
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    if (json_is_integer(value)) {
        snprintf(buffer, 64, "%lld", (long long)json_integer_value(value));
        return buffer;
    }
    if (json_is_real(value)) {
        snprintf(buffer, 64, "%.17g", json_real_value(value));
        return buffer;
    }
    return NULL;
}

static bool add_texts_from_json(option_reader *reader, const command_option *option, const json_t *value) {
    if (json_is_string(value))
        return add_text(reader, option, json_string_value(value));
    size_t index;
    const json_t *item;
    json_array_foreach(value, index,
                       item) if (!json_is_string(item) ||
                                 !add_text(reader, option, json_string_value(item))) return json_is_string(item)
        ? false
        : refuse(reader, "--%s: strings are expected", option->name);
    return json_is_array(value) || refuse(reader, "--%s: a string or a list of them is expected", option->name);
}

static bool set_from_json(option_reader *reader, const command_option *option, const json_t *value) {
    char text[1024] = "", buffer[64];
    if (option->type == OPTION_TEXTS)
        return add_texts_from_json(reader, option, value);
    if ((option->type == OPTION_TEXT || option->type == OPTION_PICTURE) && !json_is_string(value))
        return refuse(reader, "--%s: a string is expected", option->name);
    const char *word = json_word(value, buffer);
    if (!word && json_is_array(value) && (option->type == OPTION_LENGTHS || option->type == OPTION_CHOICES)) {
        size_t used = 0;
        for (size_t i = 0; i < json_array_size(value); i++) {
            const char *const item = json_word(json_array_get(value, i), buffer);
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? "," : "", item ? item : "?");
            if (used >= sizeof text)
                return refuse(reader, "--%s: the list is too long", option->name);
        }
        word = text;
    }
    if (!word)
        return refuse(reader, "--%s: one value is expected", option->name);
    return set_option(reader, option, word);
}

/* The config.json of a model or a run looks like what --config takes, and has its name. */
static bool refuse_model(option_reader *reader, const char *path) {
    return refuse(reader,
                  "--config %s: this describes a model, it has no options. For a run like one that is there: --config "
                  "RUN/options.json, and --layers, --heads, --width, ... as 'polysketch info RUN' shows them",
                  path);
}

static bool read_config(option_reader *reader, const char *path, command_line *line) {
    json_error_t error;
    json_t *const file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (file && json_array_append_new(line->config, file) != 0) /* kept: the strings live there */
        return refuse(reader, "out of memory");
    if (!file && error.line > 0)
        return refuse(reader, "--config %s: line %d: %s", path, error.line, error.text);
    if (!file)
        return refuse(reader, "--config: %s", error.text);
    if (!json_is_object(file))
        return refuse(reader, "--config %s: an object { \"name\": value, ... } is expected", path);
    if (json_object_get(file, "model_type"))
        return refuse_model(reader, path);
    char where[512];
    snprintf(where, sizeof where, "%s: ", path);
    reader->where = where;
    bool good = true;
    const char *key;
    json_t *value;
    json_object_foreach(file, key, value) {
        const command_option *const option = find_option(reader->usage, key, strlen(key));
        good = option ? set_from_json(reader, option, value) : refuse_name(reader, "", key, strlen(key));
        if (!good)
            break;
    }
    reader->where = "";
    return good;
}

/* ------------------------------------------------------------------------------------------------------------- help
 */

static const char *option_unit(const command_option *option) {
    static const char *const units[] = {
        [OPTION_COUNT] = "COUNT",     [OPTION_LENGTH] = "LENGTH",    [OPTION_SEED] = "N",    [OPTION_REAL] = "X",
        [OPTION_TEXT] = "TEXT",       [OPTION_PICTURE] = "FILE.png", [OPTION_FLAG] = "",     [OPTION_CHOICE] = "NAME",
        [OPTION_LENGTHS] = "LENGTHS", [OPTION_CHOICES] = "NAMES",    [OPTION_TEXTS] = "TEXT"};
    return option->unit ? option->unit : units[option->type];
}

static void append_list(char *text, size_t capacity, const command_option *option) {
    const option_list *const list = option->target;
    char length[FORMAT_CAPACITY];
    for (int i = 0; i < list->count; i++)
        snprintf(text + strlen(text), capacity - strlen(text), "%s%s", i ? "," : "",
                 option->type == OPTION_CHOICES ? option->names[list->values[i]]
                                                : format_length(length, list->values[i]));
}

/* The default as it would be typed, "" if there is none to show. */
static const char *option_default(const command_option *option, char text[512]) {
    text[0] = '\0';
    if (option->fallback)
        return option->fallback;
    switch (option->type) {
    case OPTION_COUNT:
        return format_bound(text, (double)*(const int64_t *)option->target);
    case OPTION_LENGTH:
        return format_length(text, *(const int64_t *)option->target);
    case OPTION_SEED:
        snprintf(text, 512, "%llu", *(const unsigned long long *)option->target);
        return text;
    case OPTION_REAL:
        return format_bound(text, *(const double *)option->target);
    case OPTION_TEXT:
    case OPTION_PICTURE:
        return *(const char *const *)option->target ? *(const char *const *)option->target : "";
    case OPTION_FLAG:
        return *(const int *)option->target > 0 ? "on" : "";
    case OPTION_CHOICE:
        return option->names[*(const int *)option->target];
    case OPTION_LENGTHS:
    case OPTION_CHOICES:
        append_list(text, 512, option);
        return text;
    case OPTION_TEXTS:
        return "";
    }
    return text;
}

static void print_option(const command_option *option) {
    char left[64], text[512];
    const bool on = option->type == OPTION_FLAG && *(const int *)option->target > 0;
    snprintf(left, sizeof left, "--%s%s %s", on ? "no-" : "", option->name, option_unit(option));
    printf("  %-26s %s", left, option->help);
    for (int i = 0; option->names && option->names[i]; i++)
        printf("%s%s", i ? ", " : ": ", option->names[i]);
    const char *const value = on ? "" : option_default(option, text);
    if (option->required)
        printf(" (required)");
    else if (value[0])
        printf(" [%s]", value);
    putchar('\n');
}

static void print_usage(const command_usage *usage) {
    printf("usage: polysketch %s %s\n\n%s\n", usage->command, usage->synopsis, usage->summary);
    for (size_t g = 0; g < usage->group_count; g++) {
        printf("\n%s\n", usage->groups[g].title);
        for (size_t i = 0; i < usage->groups[g].count; i++)
            print_option(&usage->groups[g].options[i]);
    }
    printf(
        "\nCommon\n"
        "  --config FILE              options from a JSON object, {\"name\": value, ...}; of several files the later\n"
        "                             one wins, and the command line over all\n"
        "  --help                     this text\n"
        "\nIn a COUNT k is 1000 (M and G follow), in a LENGTH 1024: 512, 2k = 2048.\nA flag is undone by --no-NAME.\n");
    if (usage->examples)
        printf("\nExamples\n%s\n", usage->examples);
}

/* ----------------------------------------------------------------------------------------------------- command line
 */

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static bool add_operand(option_reader *reader, command_line *line, const char *word) {
    if (!reader->usage->operand)
        return refuse(reader, "'%s' is not an option, and there is nothing else to give", word);
    if (line->operand_count == reader->usage->operand_most)
        return refuse(reader, "'%s': at most %zu %s", word, reader->usage->operand_most, reader->usage->operand);
    line->operands[line->operand_count++] = word;
    return true;
}

/* What is read of the command line: the files of --config first, then everything else. */
typedef enum reading { READ_CONFIGS, READ_OPTIONS } reading;

/* One option of the command line at argv[*i]: --name value, --name=value, --flag, --no-flag. */
static bool read_option(option_reader *reader, int argc, char **argv, int *i, command_line *line, reading what) {
    const char *const name = argv[*i] + 2;
    const size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    const bool is_config = length == 6 && strncmp(name, "config", 6) == 0;
    const command_option *option = is_config ? NULL : find_option(reader->usage, name, length);

    if (!option && !is_config && length > 3 && strncmp(name, "no-", 3) == 0 && !value) {
        option = find_option(reader->usage, name + 3, length - 3);
        if (option && option->type == OPTION_FLAG)
            value = "false";
        else
            option = NULL;
    }
    if (!option && !is_config)
        return refuse_name(reader, "--", name, length);
    if (option && option->type == OPTION_FLAG && !value)
        value = "true";
    if (!value) {
        if (*i + 1 == argc || strncmp(argv[*i + 1], "--", 2) == 0)
            return refuse(reader, "--%.*s needs a value (one that begins with -- is given as --%.*s=VALUE)",
                          (int)length, name, (int)length, name);
        value = argv[++*i];
    }
    if (is_config)
        return what != READ_CONFIGS || read_config(reader, value, line);
    return what != READ_OPTIONS || set_option(reader, option, value);
}

static bool read_arguments(option_reader *reader, int argc, char **argv, command_line *line, reading what) {
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *const word = argv[i];
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && strncmp(word, "--", 2) == 0) {
            if (!read_option(reader, argc, argv, &i, line, what))
                return false;
        } else if (options && word[0] == '-' && word[1])
            return refuse(reader, "no option '%s': options begin with two dashes", word);
        else if (what == READ_OPTIONS && !add_operand(reader, line, word))
            return false;
    }
    return true;
}

static bool is_missing(const command_option *option) {
    if (!option->required)
        return false;
    if (option->type == OPTION_TEXT || option->type == OPTION_PICTURE)
        return !*(const char *const *)option->target;
    return false;
}

static bool check_complete(option_reader *reader, const command_line *line) {
    const command_usage *const usage = reader->usage;
    if (usage->operand && line->operand_count < usage->operand_least)
        return refuse(reader, "%s is missing", usage->operand);
    for (size_t g = 0; g < usage->group_count; g++)
        for (size_t i = 0; i < usage->groups[g].count; i++)
            if (is_missing(&usage->groups[g].options[i]))
                return refuse(reader, "--%s %s is missing", usage->groups[g].options[i].name,
                              option_unit(&usage->groups[g].options[i]));
    return true;
}

static bool read_all(option_reader *reader, int argc, char **argv, command_line *line) {
    return read_arguments(reader, argc, argv, line, READ_CONFIGS) &&
           read_arguments(reader, argc, argv, line, READ_OPTIONS) && check_complete(reader, line);
}

bool options_read(const command_usage *usage, int argc, char **argv, command_line *line, exit_code *code) {
    if (asks_for_help(argc, argv)) {
        print_usage(usage);
        *code = EXIT_DONE;
        return false;
    }
    option_reader reader = {.usage = usage, .where = ""};
    line->operands = calloc((size_t)argc + 1, sizeof *line->operands);
    line->config = json_array();
    if (!line->operands || !line->config) {
        say_error(usage->command, "out of memory");
        *code = EXIT_FAILED;
        return false;
    }
    if (!read_all(&reader, argc, argv, line)) {
        say_error(usage->command, "%s", reader.message);
        fprintf(stderr, "'polysketch %s --help' tells what there is\n", usage->command);
        *code = EXIT_USAGE;
        return false;
    }
    return true;
}

void options_free(command_line *line) {
    free(line->operands);
    json_decref(line->config);
    *line = (command_line){.operands = NULL};
}
