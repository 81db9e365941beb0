# What is installed: the header, both libraries, the program, the pkg-config file, the CMake package, licence and pages.
include(CMakePackageConfigHelpers)

install(FILES include/polysketch.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS polysketch_shared polysketch_static EXPORT polysketchTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET polysketch)
    install(TARGETS polysketch RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

# Both descriptions find the prefix from where they lie, so an installed tree may be moved.
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/polysketch)
file(RELATIVE_PATH prefix_from_pkgconfig "/x/${CMAKE_INSTALL_LIBDIR}/pkgconfig" /x)
string(REGEX REPLACE "/$" "" prefix_from_pkgconfig "${prefix_from_pkgconfig}")
list(TRANSFORM PSK_LINK_NAMES PREPEND -l OUTPUT_VARIABLE private_libraries)
list(JOIN private_libraries " " private_libraries)
configure_file(cmake/polysketch.pc.in polysketch.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/polysketch.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(EXPORT polysketchTargets NAMESPACE polysketch:: DESTINATION ${package_folder})
configure_package_config_file(cmake/polysketchConfig.cmake.in polysketchConfig.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(polysketchConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/polysketchConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/polysketchConfigVersion.cmake
        DESTINATION ${package_folder})

install(FILES LICENSE NOTICE CHANGELOG.md CITATION.cff DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md" PATTERN "*.png")
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY experiments/results/quality DESTINATION ${CMAKE_INSTALL_DOCDIR}/experiments/results # of the pages
        FILES_MATCHING PATTERN "*.png")
