# tests/test_SUBJECT.c with tests/SUBJECT_*.c: one cmocka program each, on the static library and the inner headers.
enable_testing()

# PSK_ASSERT stays on in the tests' own code, whatever the build type.
add_library(psk_test_options INTERFACE)
target_link_libraries(psk_test_options INTERFACE polysketch_static psk_options PkgConfig::JANSSON PkgConfig::CMOCKA
                                                 OpenMP::OpenMP_C m)
target_include_directories(psk_test_options INTERFACE src tests)
target_compile_options(psk_test_options INTERFACE -UNDEBUG)
target_compile_definitions(psk_test_options INTERFACE
    PSK_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/tests/golden"
    PSK_PROGRAM="${PSK_PROGRAM_PATH}"
    PSK_WITH_ONEDNN=$<BOOL:${PSK_WITH_ONEDNN}>
    PSK_WITH_ZLIB=$<BOOL:${PSK_WITH_ZLIB}>
    PSK_WITH_ZSTD=$<BOOL:${PSK_WITH_ZSTD}>
    PSK_WITH_PCRE2=$<BOOL:${PSK_WITH_PCRE2}>
    PSK_WITH_SENTENCEPIECE=$<BOOL:${PSK_WITH_SENTENCEPIECE}>)

# Idle OpenMP threads sleep instead of spinning: ctest runs several tests at once.
set(test_environment OMP_WAIT_POLICY=passive)
if(PSK_SANITIZE)
    list(APPEND test_environment UBSAN_OPTIONS=print_stacktrace=1)
endif()
if(PSK_SANITIZE MATCHES "thread")
    include(cmake/tsan.cmake)
endif()

if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/tests/support.c)
    add_library(psk_test_support OBJECT tests/support.c)
    target_link_libraries(psk_test_support PUBLIC psk_test_options)
endif()

function(psk_add_test name)
    add_test(NAME ${name} ${ARGN})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${PSK_TEST_TIMEOUT} ENVIRONMENT "${test_environment}")
endfunction()

file(GLOB test_sources CONFIGURE_DEPENDS tests/test_*.c)
if(NOT PSK_WITH_PCRE2)
    list(FILTER test_sources EXCLUDE REGEX "/test_tokenizer_bpe[.]c$")
endif()
if(NOT PSK_WITH_SENTENCEPIECE)
    list(FILTER test_sources EXCLUDE REGEX "/test_tokenizer_sentencepiece[.]c$")
endif()
foreach(source IN LISTS test_sources)
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^test_" "" subject ${name})
    file(GLOB parts CONFIGURE_DEPENDS tests/${subject}_*.c)
    add_executable(${name} ${source} ${parts})
    target_link_libraries(${name} PRIVATE psk_test_options)
    if(TARGET psk_test_support)
        target_link_libraries(${name} PRIVATE psk_test_support)
    endif()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/tests)
    psk_add_test(${name} COMMAND ${name})
endforeach()

# What of the server can be tested without its threads.
target_sources(test_serve_step PRIVATE programs/serve_step.c programs/serve_error.c programs/serve_text.c)
target_include_directories(test_serve_step PRIVATE programs)

if(TARGET example_attention)
    psk_add_test(example_attention COMMAND example_attention)
endif()
if(TARGET polysketch AND NOT PSK_SANITIZE) # an example built outside would lack the sanitizer's library
    psk_add_test(test_install COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/test_install.sh
                 ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR} ${CMAKE_C_COMPILER})
    psk_add_test(test_demo COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/test_demo.sh
                 ${PSK_PROGRAM_PATH} ${CMAKE_CURRENT_SOURCE_DIR}/scripts/demo.sh)
    psk_add_test(test_tutorial COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/test_tutorial.sh
                 ${PSK_PROGRAM_PATH} ${CMAKE_CURRENT_SOURCE_DIR}/docs/tutorial.md)
    set_tests_properties(test_tutorial PROPERTIES SKIP_RETURN_CODE 77)
    psk_add_test(test_quality COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/test_quality.sh
                 ${PSK_PROGRAM_PATH} ${CMAKE_CURRENT_SOURCE_DIR}/experiments/quality.py)
    set_tests_properties(test_quality PROPERTIES SKIP_RETURN_CODE 77)
endif()

find_package(Python3 COMPONENTS Interpreter)
if(TARGET polysketch AND Python3_FOUND)
    foreach(name test_serve test_serve_refuses test_serve_running test_serve_states)
        psk_add_test(${name} COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tests/${name}.py ${PSK_PROGRAM_PATH})
        set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
    endforeach()
endif()
