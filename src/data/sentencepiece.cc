extern "C" {
#include "data/sentencepiece.h"
#include "base/memory.h"
}

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

struct psk_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

/* Runs `work`, which returns a status; what it throws becomes one. */
template <typename Work> psk_status guarded(Work work) {
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return psk_fail(PSK_ERROR_MEMORY, "out of memory in SentencePiece");
    } catch (const std::exception &error) {
        return psk_fail(PSK_ERROR_INTERNAL, "SentencePiece failed: %s", error.what());
    } catch (...) {
        return psk_fail(PSK_ERROR_INTERNAL, "SentencePiece failed");
    }
}

/* The lines of a psk_next_line, as the trainer wants them. */
class Lines : public sentencepiece::SentenceIterator {
  public:
    Lines(psk_next_line next_line, void *next_user) : next(next_line), user(next_user) {
        Next();
    }
    bool done() const override {
        return ended;
    }
    void Next() override {
        const char *text = nullptr;
        size_t size = 0;
        outcome = next(user, &text, &size);
        ended = outcome != PSK_OK || text == nullptr;
        if (!ended)
            line.assign(text, size);
    }
    const std::string &value() const override {
        return line;
    }
    sentencepiece::util::Status status() const override {
        return outcome == PSK_OK
                   ? sentencepiece::util::Status()
                   : sentencepiece::util::Status(sentencepiece::util::StatusCode::kAborted, "reading failed");
    }

    psk_status outcome = PSK_OK; /* of next; its message is the thread's */

  private:
    psk_next_line next;
    void *user;
    std::string line;
    bool ended = false;
};

/* Every text comes back as it was: nothing is normalised, no space is added or taken away, what no piece covers becomes
 * bytes. */
std::unordered_map<std::string, std::string> trainer_settings(int64_t vocab_size) {
    return {
        {"model_type", "bpe"},
        {"vocab_size", std::to_string(vocab_size)},
        {"byte_fallback", "true"},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"add_dummy_prefix", "false"},
        {"allow_whitespace_only_pieces", "true"},
        {"unk_id", "0"},
        {"eos_id", "1"},
        {"eos_piece", "<|endoftext|>"},
        {"bos_id", "-1"},
        {"pad_id", "-1"},
        {"max_sentence_length", "1000000"}, /* lines come shorter than that */
        {"num_threads", "1"},
        {"minloglevel", "3"}, /* errors come as a status */
    };
}

/* The number behind `words`; 0: they are not there. */
long long number_after(const std::string &message, const char *words) {
    const auto at = message.find(words);
    return at == std::string::npos ? 0 : std::atoll(message.c_str() + at + std::strlen(words));
}

/* The library's message names options of its own program: what it found out is said in our words. */
psk_status refuse_training(int64_t vocab_size, const std::string &message) {
    const long long least = number_after(message, " vs "), most = number_after(message, "value <= ");
    if (least > vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "vocab_size is %lld, this text needs at least %lld: 258 for bytes and signs, and one for each "
                        "of its characters",
                        static_cast<long long>(vocab_size), least);
    if (most > 0 && most < vocab_size)
        return psk_fail(
            PSK_ERROR_ARGUMENT,
            "vocab_size is %lld, this text has pairs for at most %lld: take a smaller one, or give more text",
            static_cast<long long>(vocab_size), most);
    return psk_fail(PSK_ERROR_ARGUMENT, "SentencePiece made no vocabulary: %s", message.c_str());
}

} // namespace

psk_status psk_sentencepiece_create(const char *bytes, size_t size, psk_sentencepiece **out) {
    *out = nullptr;
    return guarded([&]() -> psk_status {
        psk_sentencepiece *const model = new psk_sentencepiece;
        const auto status = model->processor.LoadFromSerializedProto({bytes, size});
        if (!status.ok() || model->processor.GetPieceSize() < 1) {
            delete model;
            return psk_fail(PSK_ERROR_FORMAT, "not a SentencePiece model: %s", status.ToString().c_str());
        }
        *out = model;
        return PSK_OK;
    });
}

void psk_sentencepiece_free(psk_sentencepiece *model) {
    delete model;
}

int32_t psk_sentencepiece_count(const psk_sentencepiece *model) {
    return model->processor.GetPieceSize();
}

int32_t psk_sentencepiece_end(const psk_sentencepiece *model) {
    return model->processor.eos_id();
}

psk_piece_type psk_sentencepiece_piece(const psk_sentencepiece *model, int32_t id, const char **text, size_t *size) {
    const std::string &piece = model->processor.IdToPiece(id);
    *text = piece.data();
    *size = piece.size();
    return model->processor.IsByte(id)      ? PSK_PIECE_BYTE
           : model->processor.IsControl(id) ? PSK_PIECE_CONTROL
           : model->processor.IsUnknown(id) ? PSK_PIECE_UNKNOWN
                                            : PSK_PIECE_TEXT;
}

psk_status psk_sentencepiece_encode(const psk_sentencepiece *model, const char *text, size_t size, psk_tokens *tokens) {
    return guarded([&]() -> psk_status {
        std::vector<int> ids;
        const auto status = model->processor.Encode({text, size}, &ids);
        if (!status.ok())
            return psk_fail(PSK_ERROR_INTERNAL, "SentencePiece did not encode: %s", status.ToString().c_str());
        PSK_TRY(psk_tokens_reserve(tokens, static_cast<int64_t>(ids.size())));
        for (const int id : ids)
            tokens->ids[tokens->count++] = id;
        return PSK_OK;
    });
}

psk_status psk_sentencepiece_train(int64_t vocab_size, psk_next_line next, void *user, char **bytes, size_t *size) {
    *bytes = nullptr;
    *size = 0;
    return guarded([&]() -> psk_status {
        Lines lines(next, user);
        std::string model;
        if (lines.outcome == PSK_OK && lines.done())
            return psk_fail(PSK_ERROR_FORMAT, "there is no text to make a vocabulary of");
        const auto status = sentencepiece::SentencePieceTrainer::Train(trainer_settings(vocab_size), &lines, &model);
        if (lines.outcome != PSK_OK)
            return lines.outcome;
        if (!status.ok())
            return refuse_training(vocab_size, status.ToString());
        void *block;
        PSK_TRY(psk_alloc(model.size(), "a SentencePiece model", &block));
        std::memcpy(block, model.data(), model.size());
        *bytes = static_cast<char *>(block);
        *size = model.size();
        return PSK_OK;
    });
}
