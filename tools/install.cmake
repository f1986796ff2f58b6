# cmake --install: the program, the libraries with their headers, the bundled model, and the package
# find_package(plait) finds. Rooms call each other, so they are offered as one target, plait::plait.
include(CMakePackageConfigHelpers)

get_property(rooms GLOBAL PROPERTY PLAIT_ROOMS)
install(TARGETS plait RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS ${rooms} plait_builtin plait_eigen EXPORT plaitTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
set_target_properties(plait_builtin PROPERTIES EXPORT_NAME builtin)
set_target_properties(plait_eigen PROPERTIES EXPORT_NAME eigen)

foreach(folder runtime layers weights)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/plait
          FILES_MATCHING PATTERN "*.h" PATTERN models EXCLUDE)
endforeach()

install(FILES ${PLAIT_BUNDLED_MODEL} DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/plait OPTIONAL)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/plait)
configure_package_config_file(${CMAKE_CURRENT_SOURCE_DIR}/plaitConfig.cmake.in ${PROJECT_BINARY_DIR}/plaitConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/plaitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/plaitConfig.cmake ${PROJECT_BINARY_DIR}/plaitConfigVersion.cmake
        DESTINATION ${package})
install(EXPORT plaitTargets NAMESPACE plait:: DESTINATION ${package})
