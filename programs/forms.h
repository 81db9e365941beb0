/* Forms of attention that a command goes through one after the other: mechanisms, polysketch with every sketch and
 * every local part chosen, softmax and polynomial with every choice of the keys that are seen. */
#ifndef FORMS_H
#define FORMS_H

#include "model_options.h"

typedef struct form_options {
    option_list mechanisms, sketches, locals, local_only;
} form_options;

/* All mechanisms as they are by default. */
form_options form_options_default(void);

#define FORM_OPTION_COUNT 4
option_group form_option_group(form_options *forms, command_option table[FORM_OPTION_COUNT]);

#define MOST_FORMS (OPTION_LIST_CAPACITY * 4)

/* The configurations, in that order: `usual` with mechanism, sketch, local part and the far_scale that suits them. */
size_t list_forms(const form_options *forms, const psk_model_config *usual, psk_attention_config list[MOST_FORMS]);

#endif
