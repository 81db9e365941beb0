# Every option, as configured.
set(zlib "off: no text compressed by gzip")
if(PSK_WITH_ZLIB)
    set(zlib "${ZLIB_VERSION}")
endif()
set(zstd "off: no text compressed by zstd")
if(PSK_WITH_ZSTD)
    set(zstd "${ZSTD_VERSION}")
endif()
set(microhttpd "off: no polysketch serve")
if(PSK_WITH_MICROHTTPD)
    set(microhttpd "${MICROHTTPD_VERSION}")
endif()
set(pcre2 "off: no byte-level BPE")
if(PSK_WITH_PCRE2)
    set(pcre2 "${PCRE2_VERSION}")
endif()
set(sentencepiece "off: none of its tokenizers")
if(PSK_WITH_SENTENCEPIECE)
    set(sentencepiece "${SENTENCEPIECE_VERSION}")
endif()
set(onednn "off: built-in loops")
if(PSK_WITH_ONEDNN)
    set(onednn "${DNNL_VERSION} (${DNNL_LIBRARY})")
endif()
list(LENGTH PSK_SOURCES sources)
list(LENGTH test_sources tests)
message(STATUS "polysketch ${PROJECT_VERSION}")
foreach(line
        "compiler            ${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION} (${CMAKE_SYSTEM_PROCESSOR})"
        "CMAKE_BUILD_TYPE    ${CMAKE_BUILD_TYPE}"
        "CMAKE_C_FLAGS       ${CMAKE_C_FLAGS}"
        "oneDNN              ${onednn}"
        "OpenMP              ${OpenMP_C_VERSION} (${OpenMP_C_LIB_NAMES})"
        "jansson             ${JANSSON_VERSION}"
        "zlib                ${zlib}"
        "zstd                ${zstd}"
        "libmicrohttpd       ${microhttpd}"
        "PCRE2               ${pcre2}"
        "SentencePiece       ${sentencepiece}"
        "PSK_WITH_ONEDNN     ${PSK_WITH_ONEDNN}"
        "PSK_WERROR          ${PSK_WERROR}"
        "PSK_SANITIZE        ${PSK_SANITIZE}"
        "PSK_BUILD_PROGRAM   ${PSK_BUILD_PROGRAM}"
        "PSK_BUILD_EXAMPLES  ${PSK_BUILD_EXAMPLES}"
        "PSK_BUILD_TESTS     ${PSK_BUILD_TESTS}"
        "PSK_TEST_TIMEOUT    ${PSK_TEST_TIMEOUT} s"
        "install prefix      ${CMAKE_INSTALL_PREFIX}"
        "sources, tests      ${sources}, ${tests}")
    message(STATUS "  ${line}")
endforeach()
