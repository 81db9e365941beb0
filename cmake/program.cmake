# The program: programs/*.c on the public header alone (src/ is not in its include path).
file(GLOB program_sources CONFIGURE_DEPENDS programs/*.c)
set(PSK_PROGRAM_PATH ${CMAKE_CURRENT_BINARY_DIR}/polysketch)
if(program_sources)
    add_executable(polysketch ${program_sources})
    target_link_libraries(polysketch PRIVATE psk_options polysketch_static)
    set_target_properties(polysketch PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
endif()
