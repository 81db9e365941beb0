/* Multiple-choice questions from files, one JSON object a line, in three forms, told apart by their fields:
 *
 *   HellaSwag  endings [strings], label (0 ...), and the context: activity_label, ctx_a, ctx_b, or ctx alone
 *   PIQA       goal, sol1, sol2, and label (0 or 1) or, as published, a line of NAME-labels.lst beside NAME.jsonl
 *   plain      context, choices [strings], answer (0 ...)
 *
 * Prompts are those of EleutherAI's lm-evaluation-harness, so that figures can be compared. HellaSwag: "activity_label:
 * ctx_a Ctx_b", cleaned: " [title]" becomes ". ", other [marks] are removed, a double space becomes one. PIQA:
 * "Question: goal\nAnswer:". A space stands between prompt and choice; in the plain form only where neither ends or
 * begins with white space and the context is not empty. */
#ifndef PSK_QUESTIONS_H
#define PSK_QUESTIONS_H

#include "base/status.h"

typedef struct psk_choice {
    char *text;         /* as it follows the prompt: with the space */
    int64_t characters; /* without it; of UTF-8, at least 1 */
} psk_choice;

typedef struct psk_question {
    char *prompt;
    psk_choice *choices;
    int64_t count, answer; /* 2 <= count, 0 <= answer < count */
} psk_question;

typedef struct psk_questions {
    psk_question *list;
    int64_t count, capacity;
} psk_questions;

/* labels: of PIQA; NULL: the object's, where it has none the file beside. A file has a line for each question. Errors:
 * FILE; FORMAT naming file, line and field, a file without questions, or labels that are too few or too many; MEMORY.
 * *out is empty after an error. */
psk_status psk_questions_read(const char *path, const char *labels, psk_questions *out);
void psk_questions_free(psk_questions *questions); /* accepts an empty one */

/* *prompt, released by psk_free: `shots` questions of `from`, drawn without repetition by (seed, index), each with its
 * right choice and an empty line behind, then the prompt of question `index`. It is not among the shots if `from` is
 * `questions` itself. ARGUMENT if there are not so many. */
psk_status psk_questions_prompt(const psk_questions *questions, int64_t index, const psk_questions *from, int64_t shots,
                                uint64_t seed, char **prompt);

#endif
