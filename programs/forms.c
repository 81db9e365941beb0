#include "forms.h"

form_options form_options_default(void) {
    const psk_attention_config usual = psk_attention_config_default();
    return (form_options){
        .mechanisms = {.values = {PSK_SOFTMAX, PSK_POLYNOMIAL, PSK_POLYSKETCH, PSK_PERFORMER}, .count = 4},
        .sketches = {.values = {(int64_t)usual.sketch}, .count = 1},
        .locals = {.values = {(int64_t)usual.local}, .count = 1},
        .local_only = {.values = {PSK_LOCAL_NONE}, .count = 1},
    };
}

option_group form_option_group(form_options *forms, command_option table[FORM_OPTION_COUNT]) {
    table[0] = (command_option){"mechanisms",
                                OPTION_CHOICES,
                                NULL,
                                "which ones",
                                .target = &forms->mechanisms,
                                .names = mechanism_names()->names};
    table[1] = (command_option){"sketches",
                                OPTION_CHOICES,
                                NULL,
                                "of polysketch; 'all' for every one",
                                .target = &forms->sketches,
                                .names = sketch_names()->names};
    table[2] = (command_option){"locals",
                                OPTION_CHOICES,
                                NULL,
                                "of polysketch; 'all' for every one",
                                .target = &forms->locals,
                                .names = local_names()->names};
    table[3] = (command_option){"local-only",
                                OPTION_CHOICES,
                                NULL,
                                "of softmax and polynomial: the only keys seen; none: all keys",
                                .target = &forms->local_only,
                                .names = local_names()->names};
    return (option_group){"Forms of attention", table, FORM_OPTION_COUNT};
}

size_t list_forms(const form_options *forms, const psk_model_config *usual, psk_attention_config list[MOST_FORMS]) {
    psk_model_config model = *usual;
    size_t count = 0;
    for (int i = 0; i < forms->mechanisms.count; i++) {
        const psk_mechanism mechanism = (psk_mechanism)forms->mechanisms.values[i];
        const psk_attention_config of = {.mechanism = mechanism};
        const bool sketched = mechanism == PSK_POLYSKETCH, pairs = sees_pairs(&of);
        const option_list *const locals = pairs ? &forms->local_only : &forms->locals;
        for (int s = 0; s < (sketched ? forms->sketches.count : 1); s++)
            for (int l = 0; l < (sketched || pairs ? locals->count : 1) && count < MOST_FORMS; l++) {
                psk_attention_config *const config = &list[count++];
                *config = usual->attention;
                config->mechanism = mechanism;
                config->sketch = (psk_sketch)forms->sketches.values[s];
                config->local = (psk_local)locals->values[l];
                config->local_only = pairs && config->local != PSK_LOCAL_NONE;
                model.attention = *config;
                config->far_scale = psk_default_far_scale(&model);
            }
    }
    return count;
}
