#include "data/not_text.h"

#include <string.h>

/* UTF-32 stands before UTF-16, which it begins as. */
static const struct {
    const char *name, *advice;
    int64_t at;
    const char *bytes;
    int64_t size;
} kinds[] = {
#define KIND(name, advice, at, bytes)                                                                                  \
    { name, advice, at, bytes, sizeof(bytes) - 1 }
    KIND("bzip2", "decompress it first (bunzip2)", 0, "BZh91AY&SY"),
    KIND("xz", "decompress it first (unxz)", 0, "\xFD\x37zXZ\0"),
    KIND("a 7-Zip archive", "unpack it first", 0, "7z\xBC\xAF\x27\x1C"),
    KIND("a zip archive", "unpack it first", 0, "PK\3\4"),
    KIND("a tar archive", "unpack it first", 257, "ustar"),
    KIND("Parquet", "write its column of text as JSON lines first", 0, "PAR1\x15"),
    KIND("a PNG picture", "text is needed", 0, "\x89PNG\r\n\x1A\n"),
    KIND("a PDF document", "take the text out first (pdftotext)", 0, "%PDF-"),
    KIND("UTF-32", "convert it first (iconv -f UTF-32 -t UTF-8)", 0, "\xFF\xFE\0\0"),
    KIND("UTF-32", "convert it first (iconv -f UTF-32 -t UTF-8)", 0, "\0\0\xFE\xFF"),
    KIND("UTF-16", "convert it first (iconv -f UTF-16 -t UTF-8)", 0, "\xFF\xFE"),
    KIND("UTF-16", "convert it first (iconv -f UTF-16 -t UTF-8)", 0, "\xFE\xFF"),
#undef KIND
};

psk_status psk_refuse_not_text(const char *name, const unsigned char *text, int64_t size) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (size >= kinds[i].at + kinds[i].size &&
            memcmp(text + kinds[i].at, kinds[i].bytes, (size_t)kinds[i].size) == 0)
            return psk_fail(PSK_ERROR_FORMAT,
                            "%s is %s by its first bytes: %s; prepare with --format text takes any bytes as they are",
                            name, kinds[i].name, kinds[i].advice);
    return PSK_OK;
}
