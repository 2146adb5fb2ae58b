package main

// The keys of GitLab Runner's configuration that the module gitlab-runner may use,
// with their types: https://docs.gitlab.com/runner/configuration/advanced-configuration/
// and https://docs.gitlab.com/runner/executors/kubernetes/.

type globalConfig struct {
	Concurrent       int    `toml:"concurrent"`
	CheckInterval    int    `toml:"check_interval"`
	ConnectionMaxAge string `toml:"connection_max_age"`
	ShutdownTimeout  int    `toml:"shutdown_timeout"`
	LogLevel         string `toml:"log_level"`
	LogFormat        string `toml:"log_format"`
	ListenAddress    string `toml:"listen_address"`
}

type runnerConfig struct {
	Name               string           `toml:"name"`
	URL                string           `toml:"url"`
	Executor           string           `toml:"executor"`
	Limit              int              `toml:"limit"`
	RequestConcurrency int              `toml:"request_concurrency"`
	Environment        []string         `toml:"environment"`
	FeatureFlags       map[string]bool  `toml:"feature_flags"`
	Kubernetes         kubernetesConfig `toml:"kubernetes"`
}

type kubernetesConfig struct {
	Namespace                             string            `toml:"namespace"`
	Image                                 string            `toml:"image"`
	ServiceAccount                        string            `toml:"service_account"`
	AutomountServiceAccountToken          bool              `toml:"automount_service_account_token"`
	Privileged                            bool              `toml:"privileged"`
	AllowPrivilegeEscalation              bool              `toml:"allow_privilege_escalation"`
	PullPolicy                            []string          `toml:"pull_policy"`
	PollTimeout                           int               `toml:"poll_timeout"`
	PodTerminationGracePeriodSeconds      int               `toml:"pod_termination_grace_period_seconds"`
	CleanupGracePeriodSeconds             int               `toml:"cleanup_grace_period_seconds"`
	CPURequest                            string            `toml:"cpu_request"`
	CPURequestOverwriteMaxAllowed         string            `toml:"cpu_request_overwrite_max_allowed"`
	MemoryRequest                         string            `toml:"memory_request"`
	MemoryRequestOverwriteMaxAllowed      string            `toml:"memory_request_overwrite_max_allowed"`
	MemoryLimit                           string            `toml:"memory_limit"`
	MemoryLimitOverwriteMaxAllowed        string            `toml:"memory_limit_overwrite_max_allowed"`
	HelperCPURequest                      string            `toml:"helper_cpu_request"`
	HelperMemoryRequest                   string            `toml:"helper_memory_request"`
	HelperMemoryLimit                     string            `toml:"helper_memory_limit"`
	ServiceCPURequest                     string            `toml:"service_cpu_request"`
	ServiceMemoryRequest                  string            `toml:"service_memory_request"`
	ServiceMemoryLimit                    string            `toml:"service_memory_limit"`
	ServiceMemoryLimitOverwriteMaxAllowed string            `toml:"service_memory_limit_overwrite_max_allowed"`
	PodLabels                             map[string]string `toml:"pod_labels"`
	PodAnnotations                        map[string]string `toml:"pod_annotations"`
	Volumes                               struct {
		EmptyDir []struct {
			Name      string `toml:"name"`
			MountPath string `toml:"mount_path"`
			Medium    string `toml:"medium"`
		} `toml:"empty_dir"`
	} `toml:"volumes"`
	PodSpec []struct {
		Name      string `toml:"name"`
		PatchType string `toml:"patch_type"`
		Patch     string `toml:"patch"`
	} `toml:"pod_spec"`
	BuildContainerSecurityContext struct {
		Capabilities struct {
			Drop []string `toml:"drop"`
		} `toml:"capabilities"`
	} `toml:"build_container_security_context"`
}
