# Every option, as configured.
# library_line(VARIABLE OPTION version "what is missing"): what is shown of a library that may be left out.
function(library_line variable option version missing)
    set(${variable} "off: ${missing}" PARENT_SCOPE)
    if(${option})
        set(${variable} "${version}" PARENT_SCOPE)
    endif()
endfunction()
library_line(zlib PSK_WITH_ZLIB "${ZLIB_VERSION}" "no text compressed by gzip")
library_line(zstd PSK_WITH_ZSTD "${ZSTD_VERSION}" "no text compressed by zstd")
library_line(microhttpd PSK_WITH_MICROHTTPD "${MICROHTTPD_VERSION}" "no polysketch serve")
library_line(pcre2 PSK_WITH_PCRE2 "${PCRE2_VERSION}" "no byte-level BPE")
library_line(sentencepiece PSK_WITH_SENTENCEPIECE "${SENTENCEPIECE_VERSION}" "none of its tokenizers")
library_line(onednn PSK_WITH_ONEDNN "${DNNL_VERSION} (${DNNL_LIBRARY})" "built-in loops")
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
