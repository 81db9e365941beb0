# What polysketch links to. A missing package is an error that names what to install (Debian's names).
include(CheckLibraryExists)
find_package(PkgConfig REQUIRED)

# psk_require(FOUND what package): ends configuring with what to do when a dependency is missing.
function(psk_require found what package)
    if(NOT ${found})
        message(FATAL_ERROR "${what} was not found. Install the package ${package} "
                            "(./bootstrap build does so on Debian and Ubuntu). ${ARGN}")
    endif()
endfunction()

find_package(Threads REQUIRED)
find_package(OpenMP COMPONENTS C)
psk_require(OpenMP_C_FOUND "OpenMP for ${CMAKE_C_COMPILER_ID}" "libgomp1 (gcc) or libomp-dev (clang)")

pkg_check_modules(JANSSON IMPORTED_TARGET jansson>=2.11)
psk_require(JANSSON_FOUND "jansson (JSON)" libjansson-dev)

# Header only: src/ defines XXH_INLINE_ALL before the include.
find_path(XXHASH_INCLUDE_DIR xxhash.h)
psk_require(XXHASH_INCLUDE_DIR "xxHash (checksums)" libxxhash-dev)

if(PSK_WITH_ONEDNN)
    # Debian's oneDNN ships neither a pkg-config file nor, in every version, a CMake package.
    find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.h)
    find_library(DNNL_LIBRARY dnnl)
    if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
        set(DNNL_FOUND TRUE)
        file(STRINGS "${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h" lines REGEX "define DNNL_VERSION_(MAJOR|MINOR|PATCH) ")
        string(REGEX MATCHALL "[0-9]+" DNNL_VERSION "${lines}")
        string(REPLACE ";" "." DNNL_VERSION "${DNNL_VERSION}")
    endif()
    psk_require(DNNL_FOUND "oneDNN (matrix products)" libdnnl-dev
                "Or configure with -DPSK_WITH_ONEDNN=OFF: built-in loops, slower.")
endif()

# psk_offer(NAME module what package): PkgConfig::NAME for an option PSK_WITH_NAME that is ON; what is missing switches it
# off, with a line that says so.
macro(psk_offer name module what package)
    if(PSK_WITH_${name})
        pkg_check_modules(${name} IMPORTED_TARGET ${module})
        if(NOT ${name}_FOUND)
            message(STATUS "${what}: not found, built without it. The package is ${package}.")
            set(PSK_WITH_${name} OFF)
        endif()
    endif()
endmacro()

psk_offer(ZLIB zlib "zlib (text compressed by gzip)" zlib1g-dev)
psk_offer(ZSTD libzstd>=1.4 "zstd (text compressed by it)" libzstd-dev)
psk_offer(MICROHTTPD libmicrohttpd>=0.9.71 "libmicrohttpd (polysketch serve)" libmicrohttpd-dev)
psk_offer(PCRE2 libpcre2-8>=10.30 "PCRE2 (GPT-2's tokenizer)" libpcre2-dev)
psk_offer(SENTENCEPIECE sentencepiece "SentencePiece (its tokenizers and new vocabularies)" libsentencepiece-dev)
if(PSK_WITH_SENTENCEPIECE)
    # The only C++ here is one file around that library. Sanitizers want both compilers from one family.
    include(CheckLanguage)
    if(CMAKE_C_COMPILER_ID MATCHES "Clang" AND NOT DEFINED CMAKE_CXX_COMPILER)
        string(REGEX REPLACE "clang([^/]*)$" "clang++\\1" CMAKE_CXX_COMPILER "${CMAKE_C_COMPILER}")
    endif()
    check_language(CXX)
    if(CMAKE_CXX_COMPILER)
        enable_language(CXX)
    else()
        message(STATUS "SentencePiece: built without it, for there is no C++ compiler. The package is g++.")
        set(PSK_WITH_SENTENCEPIECE OFF)
    endif()
endif()

if(PSK_BUILD_TESTS)
    pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
    psk_require(CMOCKA_FOUND "cmocka (tests)" libcmocka-dev "Or configure with -DPSK_BUILD_TESTS=OFF.")
endif()
