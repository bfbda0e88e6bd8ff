# The install tree: tools, plugin, and the runtime for find_package(KVRM).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(KVRM_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/KVRM)

install(TARGETS kvrm_runtime kvrm_trace EXPORT KVRMTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# Apart, as it needs PCRE2: find_package(KVRM COMPONENTS Text).
install(TARGETS kvrm_text EXPORT KVRMTextTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT KVRMTargets NAMESPACE KVRM::
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})
install(EXPORT KVRMTextTargets NAMESPACE KVRM::
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/runtime/include/kvrm
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/KVRMConfig.cmake.in
  ${PROJECT_BINARY_DIR}/cmake/KVRMConfig.cmake
  INSTALL_DESTINATION ${KVRM_INSTALL_CMAKEDIR})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/cmake/KVRMConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cmake/KVRMConfig.cmake
              ${PROJECT_BINARY_DIR}/cmake/KVRMConfigVersion.cmake
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})

foreach(tool kvrm-run kvrmc kvrm-opt kvrm-lsp-server)
  if(TARGET ${tool})
    install(TARGETS ${tool} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
if(TARGET kvrm-plugin)
  install(TARGETS kvrm-plugin LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
