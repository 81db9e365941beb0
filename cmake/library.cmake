# src/ -> objects -> libpolysketch.a and libpolysketch.so. Every .c file of these folders belongs to the library.
set(PSK_FOLDERS base io device reference cpu attention model train infer data)

file(GLOB PSK_SOURCES CONFIGURE_DEPENDS src/*.c)
foreach(folder IN LISTS PSK_FOLDERS)
    file(GLOB sources CONFIGURE_DEPENDS src/${folder}/*.c)
    list(APPEND PSK_SOURCES ${sources})
endforeach()
list(FILTER PSK_SOURCES EXCLUDE REGEX "${PSK_FOREIGN_FILES}")

foreach(source IN LISTS PSK_SOURCES)
    set(flags "")
    if(source MATCHES "/src/cpu/")
        list(APPEND flags ${PSK_CPU_FLAGS})
    endif()
    if(source MATCHES "_avx2\\.c$")
        list(APPEND flags ${PSK_AVX2_FLAGS})
    elseif(source MATCHES "_avx512(bf16)?\\.c$")
        list(APPEND flags ${PSK_AVX512_FLAGS})
    endif()
    if(source MATCHES "_avx512bf16\\.c$")
        list(APPEND flags -mavx512bf16)
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
endforeach()

if(NOT PSK_SOURCES) # a library needs one source to be configured
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/empty.c "typedef int psk_empty;\n")
    set(PSK_SOURCES ${CMAKE_CURRENT_BINARY_DIR}/empty.c)
endif()

add_library(psk_objects OBJECT ${PSK_SOURCES})
target_include_directories(psk_objects PUBLIC include src PRIVATE ${XXHASH_INCLUDE_DIR})
target_link_libraries(psk_objects PUBLIC psk_options PkgConfig::JANSSON OpenMP::OpenMP_C m)
target_compile_definitions(psk_objects PUBLIC PSK_WITH_ONEDNN=$<BOOL:${PSK_WITH_ONEDNN}>)
if(PSK_WITH_ONEDNN)
    target_include_directories(psk_objects SYSTEM PRIVATE ${DNNL_INCLUDE_DIR})
endif()

# What a program that links the static library has to link too, in the build tree and after installation.
set(PSK_LINK_BUILD $<BUILD_INTERFACE:psk_options> $<BUILD_INTERFACE:OpenMP::OpenMP_C>
                   $<BUILD_INTERFACE:PkgConfig::JANSSON> $<BUILD_INTERFACE:m>)
string(REGEX MATCH "gomp|omp" PSK_OPENMP_NAME "${OpenMP_C_LIB_NAMES}")
set(PSK_LINK_NAMES jansson ${PSK_OPENMP_NAME} m)
if(PSK_WITH_ONEDNN)
    list(APPEND PSK_LINK_BUILD $<BUILD_INTERFACE:${DNNL_LIBRARY}>)
    list(PREPEND PSK_LINK_NAMES dnnl)
endif()

add_library(polysketch_shared SHARED $<TARGET_OBJECTS:psk_objects>)
add_library(polysketch_static STATIC $<TARGET_OBJECTS:psk_objects>)
foreach(library polysketch_shared polysketch_static)
    target_include_directories(${library} PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
                                                 $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    target_link_libraries(${library} PRIVATE ${PSK_LINK_BUILD})
    set_target_properties(${library} PROPERTIES OUTPUT_NAME polysketch LINKER_LANGUAGE C)
endforeach()
set_target_properties(polysketch_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
                                                   EXPORT_NAME polysketch)
set_target_properties(polysketch_static PROPERTIES EXPORT_NAME static)
target_link_libraries(polysketch_static INTERFACE "$<INSTALL_INTERFACE:${PSK_LINK_NAMES}>")
add_library(polysketch::polysketch ALIAS polysketch_shared)
add_library(polysketch::static ALIAS polysketch_static)
