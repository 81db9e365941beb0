# The program: programs/*.c on the public header alone (src/ is not in its include path).
file(GLOB program_sources CONFIGURE_DEPENDS programs/*.c)
set(PSK_PROGRAM_PATH ${CMAKE_CURRENT_BINARY_DIR}/polysketch)
if(NOT PSK_WITH_MICROHTTPD)
    list(FILTER program_sources EXCLUDE REGEX "/serve_[^/]*\\.c$") # command_serve.c says so
endif()
if(program_sources)
    add_executable(polysketch ${program_sources})
    target_link_libraries(polysketch PRIVATE psk_options polysketch_static)
    target_compile_definitions(polysketch PRIVATE PSK_WITH_MICROHTTPD=$<BOOL:${PSK_WITH_MICROHTTPD}>)
    if(PSK_WITH_MICROHTTPD)
        set(page ${CMAKE_CURRENT_SOURCE_DIR}/programs/serve_page.html)
        set(embedded ${CMAKE_CURRENT_BINARY_DIR}/serve_page.c)
        add_custom_command(OUTPUT ${embedded}
                           COMMAND ${CMAKE_COMMAND} -D INPUT=${page} -D OUTPUT=${embedded} -D NAME=serve_page
                                   -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed.cmake
                           DEPENDS ${page} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
        target_sources(polysketch PRIVATE ${embedded})
        target_include_directories(polysketch PRIVATE programs)
        target_link_libraries(polysketch PRIVATE PkgConfig::MICROHTTPD Threads::Threads)
    endif()
    set_target_properties(polysketch PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
endif()
